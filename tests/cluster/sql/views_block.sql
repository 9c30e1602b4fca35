-- One session
-- A block sees its own writes in the views, and is refused when somebody else has changed what it read there.
CREATE TABLE votes (phone BIGINT, number INT, contestant INT NOT NULL, weight INT, PRIMARY KEY (phone, number));
CREATE MATERIALIZED VIEW by_phone AS SELECT phone, COUNT(*) AS votes, MAX(weight) AS heaviest FROM votes GROUP BY phone;
CREATE MATERIALIZED VIEW by_contestant AS SELECT contestant, COUNT(*) AS votes, MIN(weight) AS lightest FROM votes GROUP BY contestant;
INSERT INTO votes VALUES (1, 1, 7, 10), (1, 2, 8, 20), (2, 1, 7, 5), (3, 1, 9, 1);
BEGIN;
INSERT INTO votes VALUES (1, 3, 7, 30), (4, 1, 7, 2);
SELECT * FROM by_phone WHERE phone = 1;
SELECT * FROM by_phone ORDER BY phone;
SELECT * FROM by_contestant ORDER BY contestant;
SAVEPOINT before;
DELETE FROM votes WHERE phone = 4;
DELETE FROM votes WHERE phone = 1 AND number = 3;
UPDATE votes SET contestant = 9 WHERE phone = 2;
SELECT * FROM by_phone WHERE phone = 1;
SELECT * FROM by_contestant ORDER BY contestant;
ROLLBACK TO before;
SELECT * FROM by_contestant ORDER BY contestant;
COMMIT;
SELECT * FROM by_contestant ORDER BY contestant;
BEGIN READ ONLY;
SELECT * FROM by_contestant WHERE contestant = 7;
COMMIT;
BEGIN;
CREATE MATERIALIZED VIEW inside AS SELECT phone, COUNT(*) FROM votes GROUP BY phone;
ROLLBACK;
EXPLAIN SELECT votes, heaviest FROM by_phone WHERE phone = 1;
EXPLAIN SELECT * FROM by_phone WHERE phone = 1;
-- A partitioned procedure reads a view of its partition.
CREATE PROCEDURE vote(caller BIGINT, who INT, OUT cast_before BIGINT) PARTITION ON TABLE votes COLUMN phone AS $$
BEGIN
  SELECT votes INTO cast_before FROM by_phone WHERE phone = caller;
  IF cast_before >= 3 THEN
    RAISE EXCEPTION 'phone % has voted % times', caller, cast_before;
  END IF;
  INSERT INTO votes VALUES (caller, COALESCE(cast_before, 0) + 10, who, 0);
  SELECT votes INTO cast_before FROM by_phone WHERE phone = caller;
END
$$;
CALL vote(2, 7, NULL);
CALL vote(2, 7, NULL);
CALL vote(2, 7, NULL);
CALL vote(5, 8, NULL);
DROP MATERIALIZED VIEW by_phone;
SELECT * FROM by_phone ORDER BY phone;
SELECT * FROM by_contestant ORDER BY contestant;
DROP PROCEDURE vote;
DROP MATERIALIZED VIEW by_phone, by_contestant;
DROP TABLE votes;
