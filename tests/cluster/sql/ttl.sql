-- One session
-- Rows that expire: what is said of them, and what is refused. Nothing here is old enough to go.
CREATE TABLE sessions (id INT PRIMARY KEY, seen TIMESTAMP, name TEXT) USING TTL 30 MINUTES ON COLUMN seen;
CREATE TABLE events (id BIGINT, "At" BIGINT, PRIMARY KEY (id)) WITH REPLICATION = 2 USING TTL 1 DAYS ON COLUMN "At" MAX_FREQUENCY 4 BATCH_SIZE 500 PARTITION BY (id);
SELECT table_name, column_name, ttl_seconds, batch_size, max_frequency, index_name, expired_rows FROM system.ttl ORDER BY table_name;
SELECT name, "table", is_unique, state, definition FROM system.indexes WHERE "table" IN ('sessions', 'events') ORDER BY name;
INSERT INTO sessions VALUES (1, '2200-01-01', 'later'), (2, NULL, 'never');
INSERT INTO events VALUES (1, 99999999999), (2, NULL);
SELECT * FROM sessions ORDER BY id;
SELECT * FROM events ORDER BY id;
SELECT id FROM sessions WHERE seen > '2100-01-01';
-- Another time, the same index.
ALTER TABLE sessions USING TTL 2 HOURS ON COLUMN seen MAX_FREQUENCY 100;
SELECT column_name, ttl_seconds, batch_size, max_frequency, index_name FROM system.ttl WHERE table_name = 'sessions';
-- Another column, another index.
ALTER TABLE sessions ADD COLUMN started INT;
UPDATE sessions SET started = 2000000000 WHERE id = 1;
ALTER TABLE IF EXISTS ONLY public.sessions USING TTL 5 ON COLUMN started;
SELECT column_name, ttl_seconds, batch_size, max_frequency, index_name FROM system.ttl WHERE table_name = 'sessions';
SELECT name, state, definition FROM system.indexes WHERE "table" = 'sessions';
SELECT * FROM sessions ORDER BY id;
-- The index goes with the TTL.
DROP INDEX sessions_ttl_idx1;
ALTER TABLE sessions DROP TTL;
SELECT count(*) FROM system.ttl WHERE table_name = 'sessions';
SELECT count(*) FROM system.indexes WHERE "table" = 'sessions';
ALTER TABLE sessions DROP TTL;
-- A name that is taken, and one that is long.
CREATE TABLE sessions_ttl_idx (id INT PRIMARY KEY);
ALTER TABLE sessions USING TTL 5 ON COLUMN seen;
CREATE TABLE sessions_ttl_idx1 (id INT PRIMARY KEY);
CREATE TABLE a_name_of_sixty_three_bytes_which_is_the_most_that_one_can_have (id INT PRIMARY KEY, seen TIMESTAMP) USING TTL 1 HOURS ON COLUMN seen;
SELECT index_name FROM system.ttl ORDER BY 1;
DROP TABLE a_name_of_sixty_three_bytes_which_is_the_most_that_one_can_have;
-- Refused.
CREATE TABLE bad (id INT PRIMARY KEY, seen TIMESTAMP) USING TTL 5 ON COLUMN gone;
CREATE TABLE bad (id INT PRIMARY KEY, seen TEXT) USING TTL 5 ON COLUMN seen;
CREATE TABLE bad (id INT PRIMARY KEY, seen TIMESTAMP) USING TTL 0 SECONDS ON COLUMN seen;
CREATE TABLE bad (id INT PRIMARY KEY, seen TIMESTAMP) USING TTL 36501 DAYS ON COLUMN seen;
CREATE TABLE bad (id INT PRIMARY KEY, seen TIMESTAMP) USING TTL 5 WEEKS ON COLUMN seen;
CREATE TABLE bad (id INT PRIMARY KEY, seen TIMESTAMP) USING TTL 5 ON seen;
CREATE TABLE bad (id INT PRIMARY KEY, seen TIMESTAMP) USING TTL 5 ON COLUMN;
CREATE TABLE bad (id INT PRIMARY KEY, seen TIMESTAMP) USING TTL 5 ON COLUMN seen BATCH_SIZE 0;
CREATE TABLE bad (id INT PRIMARY KEY, seen TIMESTAMP) USING TTL 5 ON COLUMN seen MAX_FREQUENCY 101;
CREATE TABLE bad (id INT PRIMARY KEY, seen TIMESTAMP) USING TTL 5 ON COLUMN seen USING TTL 6 ON COLUMN seen;
CREATE TABLE bad (id INT PRIMARY KEY, seen TIMESTAMP) REPLICATED USING TTL 5 ON COLUMN seen;
ALTER TABLE sessions USING TTL 5 ON COLUMN name;
ALTER TABLE sessions USING TTL 5 ON COLUMN gone;
ALTER TABLE nothing USING TTL 5 ON COLUMN seen;
ALTER TABLE IF EXISTS nothing DROP TTL;
ALTER TABLE sessions DROP TTL CASCADE;
CREATE MATERIALIZED VIEW by_name AS SELECT name, count(*) AS n FROM sessions GROUP BY name;
ALTER TABLE by_name USING TTL 5 ON COLUMN name;
BEGIN;
ALTER TABLE sessions DROP TTL;
ROLLBACK;
SELECT table_name, ttl_seconds FROM system.ttl ORDER BY table_name;
DROP MATERIALIZED VIEW by_name;
-- It goes with its column.
ALTER TABLE events DROP COLUMN "At";
SELECT table_name FROM system.ttl ORDER BY table_name;
SELECT count(*) FROM system.indexes WHERE "table" = 'events';
SELECT * FROM events ORDER BY id;
DROP TABLE sessions, events, sessions_ttl_idx;
SELECT count(*) FROM system.ttl;
