-- Every outbound call. state is the whole of it in its outside form, attempts and echo
-- included; the other columns are what queries select and sort by.

CREATE TABLE {calls} (
  call_id        {text} NOT NULL PRIMARY KEY,
  correlation_id {text} NOT NULL,
  command        {text} NOT NULL,
  realm          {text} NOT NULL,
  user_id        {text} NOT NULL, -- empty until known when a user is created
  method         {text} NOT NULL,
  url_template   {text} NOT NULL,
  status         {text} NOT NULL,
  code           {text} NOT NULL,
  error          {text} NOT NULL,
  actor          {text} NOT NULL,
  reason         {text} NOT NULL,
  requested_at   {time} NOT NULL,
  finished_at    {time},
  state          {json} NOT NULL,
  version        {int}  NOT NULL, -- of the call's stream
  position       {int}  NOT NULL  -- of the newest event folded
);

CREATE INDEX {index}_requested ON {calls} (requested_at, call_id);

CREATE INDEX {index}_status ON {calls} (status, requested_at, call_id);

CREATE INDEX {index}_user ON {calls} (realm, user_id, requested_at, call_id);

CREATE INDEX {index}_open ON {calls} (realm, user_id) WHERE status IN ('requested', 'unknown');

CREATE INDEX {index}_correlation ON {calls} (correlation_id);
