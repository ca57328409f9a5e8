-- min_program: 0.1.0
-- Files that arrive in parts. Table of the room storage.

-- part_size: of all parts but the last; empty: the file arrives whole. upload_id: the store's name for the upload;
-- empty: parts arrive at a node. asked_at: when it was said to be complete; from then on whoever has the time
-- verifies it. asked_from: the network address it was said from.
ALTER TABLE files ADD COLUMN part_size bigint;
ALTER TABLE files ADD COLUMN upload_id text;
ALTER TABLE files ADD COLUMN asked_at timestamptz;
ALTER TABLE files ADD COLUMN asked_from text;
CREATE INDEX files_by_claim ON files (claimed_until) WHERE asked_at IS NOT NULL;

-- What lies in the store without a row is looked for by its key.
CREATE INDEX files_by_incoming ON files (incoming);
