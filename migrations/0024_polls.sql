-- min_program: 0.1.0
-- Polls: questions that a conversation answers. Tables of the room chat.

-- seq: the conversation's next message when it was made: who may see that may see the poll. change: of what
-- last happened to it. voter_count: of people; vote_count: of an option.
CREATE TABLE polls (
    poll_id uuid PRIMARY KEY,
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL,
    change bigint NOT NULL,
    question text NOT NULL,
    poll_type text NOT NULL CHECK (poll_type IN ('single', 'multi')),
    allow_vote_change boolean NOT NULL,
    voter_count bigint NOT NULL,
    created_by uuid NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    closed_at timestamptz
);
CREATE INDEX polls_by_conversation ON polls (conversation_id, poll_id);
CREATE INDEX polls_by_end ON polls (expires_at) WHERE closed_at IS NULL;
CREATE INDEX polls_by_creator ON polls (created_by, poll_id);

CREATE TABLE poll_options (
    poll_id uuid NOT NULL,
    place bigint NOT NULL,
    option_id uuid NOT NULL,
    text text NOT NULL,
    vote_count bigint NOT NULL,
    PRIMARY KEY (poll_id, place)
);

CREATE TABLE poll_votes (
    poll_id uuid NOT NULL,
    user_id uuid NOT NULL,
    option_id uuid NOT NULL,
    voted_at timestamptz NOT NULL,
    PRIMARY KEY (poll_id, user_id, option_id)
);
CREATE INDEX poll_votes_by_user ON poll_votes (user_id, poll_id, option_id);
