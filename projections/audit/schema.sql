-- The audit trail. entry is the whole of a row in its outside form; the other columns
-- are what queries select and sort by. {entries}, {users}, {actors} and the names of
-- indexes are replaced by names, {text} and its like by column types.

CREATE TABLE {entries} (
  row_id         {text} NOT NULL PRIMARY KEY, -- event/ID, call/ID of the call, or delivery/ID of the event
  occurred_at    {time} NOT NULL,
  position       {int}  NOT NULL, -- of the event that the row tells of
  realm          {text} NOT NULL,
  event_type     {text} NOT NULL,
  action         {text} NOT NULL,
  actor_id       {text} NOT NULL,
  actor_username {text} NOT NULL,
  user_id        {text} NOT NULL,
  username       {text} NOT NULL, -- in lower case
  entry          {json} NOT NULL
);

CREATE INDEX {entry_index}_occurred ON {entries} (occurred_at, position);

CREATE INDEX {entry_index}_realm ON {entries} (realm, occurred_at, position);

CREATE INDEX {entry_index}_event_type ON {entries} (event_type, occurred_at, position);

CREATE INDEX {entry_index}_action ON {entries} (action, occurred_at, position);

CREATE INDEX {entry_index}_actor_id ON {entries} (actor_id, occurred_at, position);

CREATE INDEX {entry_index}_actor_username ON {entries} (actor_username, occurred_at, position);

CREATE INDEX {entry_index}_unnamed ON {entries} (actor_id, occurred_at, position)
  WHERE actor_username = '' AND actor_id <> '';

CREATE INDEX {entry_index}_user_id ON {entries} (user_id, occurred_at, position);

CREATE INDEX {entry_index}_username ON {entries} (username, occurred_at, position);

-- The states of users, from which the next event's old values are taken.
CREATE TABLE {users} (
  realm   {text} NOT NULL,
  user_id {text} NOT NULL,
  state   {json} NOT NULL,
  PRIMARY KEY (realm, user_id)
);

-- The names that Keycloak's accounts have been seen to act under, each of them: by these
-- an actor's rows are found whose events did not tell the name.
CREATE TABLE {actors} (
  username {text} NOT NULL,
  actor_id {text} NOT NULL,
  PRIMARY KEY (username, actor_id)
);
