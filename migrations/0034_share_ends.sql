-- min_program: 0.1.0
-- Table of the room storage. What is kept of a file lies at files/<incoming> now.

-- From when on nobody reads the file here: the end of the message that carries it; empty: it has none.
ALTER TABLE file_shares ADD COLUMN ends_at timestamptz;
