CREATE TABLE parcels (id INT PRIMARY KEY, weight INT) WITH REPLICATION = 1;
CREATE TABLE letters (id INT PRIMARY KEY, town TEXT) WITH REPLICATION = 1;
CREATE TABLE vans (id INT PRIMARY KEY, plate TEXT) WITH REPLICATION = 2;
INSERT INTO parcels VALUES (1, 10), (2, 20), (3, 30), (4, 40), (5, 50), (6, 60);
INSERT INTO letters VALUES (1, 'Ulm'), (2, 'Bern'), (3, 'Linz');
INSERT INTO vans VALUES (1, 'A 1'), (2, 'B 2');
TRUNCATE parcels;
SELECT count(*) FROM parcels;
SELECT count(*) FROM letters;
-- The table is as it was, without rows.
INSERT INTO parcels VALUES (1, 11), (7, 70);
SELECT id, weight FROM parcels ORDER BY id;
-- Several at once, of different replication groups too, one of them twice.
TRUNCATE TABLE parcels, ONLY letters, public.vans, parcels RESTART IDENTITY CASCADE;
SELECT (SELECT count(*) FROM parcels) + (SELECT count(*) FROM letters) + (SELECT count(*) FROM vans) AS rows;
TRUNCATE vans CONTINUE IDENTITY RESTRICT;
-- None of them if one is not there.
INSERT INTO letters VALUES (1, 'Ulm');
TRUNCATE letters, missing;
SELECT count(*) FROM letters;
TRUNCATE IF EXISTS letters;
TRUNCATE;
TRUNCATE other.letters;
-- With a key it happens once.
/* volt.idempotency_key = 'empty letters' */ TRUNCATE letters;
INSERT INTO letters VALUES (2, 'Bern');
/* volt.idempotency_key = 'empty letters' */ TRUNCATE letters;
SELECT id, town FROM letters;
CREATE PROCEDURE empty() AS $$ BEGIN TRUNCATE letters; END $$;
DROP TABLE parcels, letters, vans;
