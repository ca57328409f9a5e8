-- min_program: 0.1.0
-- Which calls ring for somebody, or have them in it. Tables of the room signaling.
CREATE INDEX call_people_current ON call_people (user_id, call_id) WHERE state IN ('ringing', 'joined');
