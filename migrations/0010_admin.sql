-- min_program: 0.1.0
-- Keeping order: who may not sign in, what people report, what everybody is told. Tables of the room auth.

-- One row for each person, at most. until_at: empty for good; one that has passed counts no more.
-- banned_by: empty when it was done from the command line.
CREATE TABLE bans (
    user_id uuid PRIMARY KEY,
    reason text NOT NULL,
    banned_at timestamptz NOT NULL,
    until_at timestamptz,
    banned_by uuid
);

-- user_id: who it is about, of a message its sender. content: of the message as it was shown to the reporter;
-- empty for a person, and for what only its readers can decipher. note: of the admin.
CREATE TABLE reports (
    report_id uuid PRIMARY KEY,
    reporter_id uuid NOT NULL,
    user_id uuid NOT NULL,
    message_id uuid,
    conversation_id uuid,
    reason text NOT NULL,
    comment text NOT NULL,
    content text,
    state text NOT NULL CHECK (state IN ('open', 'resolved', 'dismissed')),
    note text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    updated_by uuid
);
CREATE INDEX reports_by_state ON reports (state, report_id);
CREATE INDEX reports_by_reporter ON reports (reporter_id, state);

-- until_at: from then on it is listed no more; empty: it always is.
CREATE TABLE announcements (
    announcement_id uuid PRIMARY KEY,
    text text NOT NULL,
    created_at timestamptz NOT NULL,
    created_by uuid NOT NULL,
    until_at timestamptz
);
