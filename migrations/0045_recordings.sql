-- min_program: 0.1.0
-- Recordings of calls. Tables of the room signaling.

-- state: asking, until all have said that they agree; recording; stopped, while the rest of it may come;
-- finishing, while its parts are put together; completed, or partial without the end; dropped: nothing is kept of
-- it; deleted, until its parts are removed. file_id, place: what it is as a file, and where its parts lie.
-- touched_at: when something last came. look_at: when there is something to do about one that has ended.
CREATE TABLE recordings (
    recording_id uuid PRIMARY KEY,
    call_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    recorder_id uuid NOT NULL,
    device_id uuid NOT NULL,
    content_type text NOT NULL,
    is_encrypted boolean NOT NULL,
    state text NOT NULL CHECK (state IN
        ('asking', 'recording', 'stopped', 'finishing', 'completed', 'partial', 'dropped', 'deleted')),
    file_id uuid NOT NULL,
    place text NOT NULL,
    started_at timestamptz NOT NULL,
    touched_at timestamptz NOT NULL,
    begun_at timestamptz,
    ended_at timestamptz,
    end_reason text CHECK (end_reason IN
        ('stopped', 'refused', 'withdrawn', 'call_over', 'recorder_left', 'silent', 'too_long', 'lost')),
    is_whole boolean NOT NULL,
    look_at timestamptz
);
-- one at a time in a call, whatever races
CREATE UNIQUE INDEX recordings_open ON recordings (call_id) WHERE ended_at IS NULL;
CREATE INDEX recordings_by_call ON recordings (call_id, recording_id);
CREATE INDEX recordings_by_recorder ON recordings (recorder_id, recording_id);
CREATE INDEX recordings_by_file ON recordings (file_id);
CREATE INDEX recordings_by_look ON recordings (look_at) WHERE look_at IS NOT NULL;

-- Who was asked. agrees: null while there is no answer. device_id: on which they answered.
CREATE TABLE recording_consents (
    recording_id uuid NOT NULL,
    user_id uuid NOT NULL,
    asked_at timestamptz NOT NULL,
    agrees boolean,
    device_id uuid,
    answered_at timestamptz,
    PRIMARY KEY (recording_id, user_id)
);
CREATE INDEX recording_consents_by_user ON recording_consents (user_id, recording_id);

-- sha256: of the content, raw. received_at: null while it is on its way to where it is kept.
CREATE TABLE recording_parts (
    recording_id uuid NOT NULL,
    number bigint NOT NULL,
    sha256 bytea NOT NULL,
    size_bytes bigint NOT NULL,
    received_at timestamptz,
    PRIMARY KEY (recording_id, number)
);
