-- +goose Up

-- digest tells a damaged snapshot. One without is ignored.
ALTER TABLE api_snapshots ADD COLUMN digest TEXT NOT NULL DEFAULT '';
