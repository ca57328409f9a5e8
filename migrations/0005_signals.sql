-- min_program: 0.1.0
-- Owner: deps/signals.py.

-- What nodes tell each other while the bus is away; a row is deleted after a minute. sender: one process, from
-- its start to its end; number: dense for each sender, and ascending in the order of the commits.
CREATE TABLE signals (
    sender uuid NOT NULL,
    number bigint NOT NULL,
    channel text NOT NULL,
    payload bytea NOT NULL,
    sent_at timestamptz NOT NULL,
    PRIMARY KEY (sender, number)
);
CREATE INDEX signals_by_time ON signals (sent_at);
