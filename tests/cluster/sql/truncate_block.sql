-- One session: not in a block.
CREATE TABLE parcels (id INT PRIMARY KEY, weight INT) WITH REPLICATION = 1;
INSERT INTO parcels VALUES (1, 10), (2, 20);
BEGIN;
TRUNCATE parcels;
ROLLBACK;
SELECT count(*) FROM parcels;
TRUNCATE parcels;
SELECT count(*) FROM parcels;
DROP TABLE parcels;
