-- min_program: 0.1.0
-- Owner: the room auth.

-- invite_id: the invite that a use was taken of, none where none was needed. It is given back should the
-- address never be confirmed.
ALTER TABLE registrations ADD COLUMN invite_id uuid;
