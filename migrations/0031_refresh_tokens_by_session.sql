-- min_program: 0.1.0
-- Refresh tokens of a session, which go with a person who is erased. Table of the room auth.

CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);
