-- One session
-- Between BEGIN and COMMIT it stands still.
CREATE TABLE moments_of_block (id INT PRIMARY KEY, at TIMESTAMP DEFAULT now());
BEGIN;
INSERT INTO moments_of_block (id) VALUES (1);
INSERT INTO moments_of_block VALUES (2, now()), (3, CURRENT_TIMESTAMP);
SELECT count(DISTINCT at) FROM moments_of_block;
SELECT count(*) FROM moments_of_block WHERE at = now();
SELECT id FROM moments_of_block WHERE id = 1 AND at = now();
COMMIT;
SELECT count(*) FROM moments_of_block WHERE at < now();
INSERT INTO moments_of_block (id) VALUES (4);
SELECT count(DISTINCT at) FROM moments_of_block;
DROP TABLE moments_of_block;
