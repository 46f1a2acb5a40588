-- The believed state of every user, deleted ones included. state is the whole of it;
-- the other columns are what queries select and sort by. {users} and {index} are
-- replaced by names, {text} and its like by column types.

CREATE TABLE {users} (
  realm            {text} NOT NULL,
  user_id          {text} NOT NULL,
  username         {text} NOT NULL,
  email            {text},
  enabled          {bool},          -- null where it is not known
  deleted          {bool} NOT NULL,
  search           {text} NOT NULL, -- user name, address and names in lower case
  state            {json} NOT NULL,
  version          {int}  NOT NULL, -- of the user's stream
  position         {int}  NOT NULL, -- of the newest event folded
  last_occurred_at {time} NOT NULL,
  unread_since     {time},          -- when something was left open that a read settles
  updated_at       {time} NOT NULL, -- when that newest event was recorded
  PRIMARY KEY (realm, user_id)
){storage};

CREATE INDEX {index}_username ON {users} (realm, username, user_id);

CREATE INDEX {index}_email ON {users} (realm, email) WHERE email IS NOT NULL;

CREATE INDEX {index}_user_id ON {users} (user_id);

CREATE INDEX {index}_unread ON {users} (unread_since) WHERE unread_since IS NOT NULL;
