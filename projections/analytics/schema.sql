-- Counts by hour (UTC). What name and detail mean depends on the metric; see fold.go.
CREATE TABLE {counts} (
  metric {text} NOT NULL,
  hour   {time} NOT NULL,
  realm  {text} NOT NULL, -- empty where an event says none
  name   {text} NOT NULL,
  detail {text} NOT NULL,
  n      {int}  NOT NULL,
  PRIMARY KEY (metric, hour, realm, name, detail)
);

-- What later events of a call do not say: where it is counted, and as what.
CREATE TABLE {calls} (
  call_id {text} NOT NULL PRIMARY KEY,
  hour    {time} NOT NULL, -- in which it was requested
  realm   {text} NOT NULL,
  command {text} NOT NULL,
  status  {text} NOT NULL,
  code    {text} NOT NULL,
  timed   {bool} NOT NULL  -- its duration is counted
);

-- The drift of each user that ever had any.
CREATE TABLE {drifts} (
  realm     {text} NOT NULL,
  user_id   {text} NOT NULL,
  situation {text} NOT NULL, -- empty where none is open
  PRIMARY KEY (realm, user_id)
);
