-- min_program: 0.1.0
-- Calls: who was called, and who is in one. Tables of the room signaling.

-- epoch: raised whenever the signaling of the call was lost; frames of an older one are dropped. ring_until: when
-- whoever has not answered has missed it; null once nobody rings. ended_by: who ended it; null when it ended by itself.
CREATE TABLE calls (
    call_id uuid PRIMARY KEY,
    conversation_id uuid NOT NULL,
    caller_id uuid NOT NULL,
    call_type text NOT NULL CHECK (call_type IN ('audio', 'video')),
    state text NOT NULL
        CHECK (state IN ('ringing', 'active', 'recovering', 'ended', 'missed', 'declined', 'busy', 'failed')),
    topology text NOT NULL CHECK (topology IN ('mesh')),
    epoch bigint NOT NULL,
    started_at timestamptz NOT NULL,
    ring_until timestamptz,
    answered_at timestamptz,
    ended_at timestamptz,
    ended_by uuid
);
-- one at a time in a conversation, whatever races
CREATE UNIQUE INDEX calls_under_way ON calls (conversation_id) WHERE ended_at IS NULL;
CREATE INDEX calls_by_conversation ON calls (conversation_id, call_id);
CREATE INDEX calls_by_ring ON calls (ring_until) WHERE ring_until IS NOT NULL;

-- Everybody who was called or came. device_id: on which they are, or were, in it.
CREATE TABLE call_people (
    call_id uuid NOT NULL,
    user_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('ringing', 'joined', 'left', 'declined', 'missed', 'busy')),
    device_id uuid,
    joined_at timestamptz,
    left_at timestamptz,
    PRIMARY KEY (call_id, user_id)
);
CREATE INDEX call_people_by_user ON call_people (user_id, call_id);
-- one call at a time for everybody, whatever races
CREATE UNIQUE INDEX call_people_engaged ON call_people (user_id) WHERE state = 'joined';

-- A device that is connected to a call, or was until just now. instance_id: one load of its page. node_id, life:
-- the process that has its socket. token_hash: SHA-256 of what it comes back with. lost_at: since when it has no
-- socket. turn: how often it has come; what is known of an earlier turn says nothing of a later one.
CREATE TABLE call_peers (
    peer_id uuid PRIMARY KEY,
    call_id uuid NOT NULL,
    user_id uuid NOT NULL,
    device_id uuid NOT NULL,
    instance_id text NOT NULL,
    node_id uuid NOT NULL,
    life text NOT NULL,
    token_hash bytea NOT NULL,
    audio boolean NOT NULL,
    video boolean NOT NULL,
    screen boolean NOT NULL,
    joined_at timestamptz NOT NULL,
    lost_at timestamptz,
    turn bigint NOT NULL,
    UNIQUE (call_id, user_id)
);
CREATE INDEX call_peers_by_node ON call_peers (node_id);
CREATE INDEX call_peers_by_loss ON call_peers (lost_at) WHERE lost_at IS NOT NULL;
