-- One session
-- now() is the time of the statement that runs, not of its plan, nor of anything that is kept.
CREATE TABLE moments (id INT PRIMARY KEY, at TIMESTAMP DEFAULT now(), CHECK (at <= now()));
INSERT INTO moments (id) VALUES (1);
INSERT INTO moments VALUES (2, now());
INSERT INTO moments (id) VALUES (3), (4);
SELECT a.id, b.id FROM moments a, moments b WHERE a.at < b.at ORDER BY 1, 2;
UPDATE moments SET at = now() WHERE id = 1;
SELECT a.id FROM moments a, moments b WHERE b.id = 4 AND a.at > b.at;
-- The same text again.
INSERT INTO moments VALUES (5, now()) RETURNING at <= now();
UPDATE moments SET at = now() WHERE id = 1;
SELECT a.id FROM moments a, moments b WHERE b.id = 5 AND a.at > b.at;
SELECT count(*) FROM moments WHERE at < now();
SELECT count(*) FROM moments WHERE at > now() - INTERVAL '1 hour';
SELECT now() > max(at) FROM moments;
-- What is a calculation.
UPDATE moments SET at = now() - INTERVAL '2 hours' WHERE id > 3;
DELETE FROM moments WHERE at < now() - INTERVAL '1 hour';
SELECT id FROM moments ORDER BY id;
INSERT INTO moments VALUES (6, now() + INTERVAL '1 hour');
INSERT INTO moments VALUES (6, '2999-01-01');
BEGIN;
UPDATE moments SET at = now() WHERE id = 2;
SELECT a.id FROM moments a, moments b WHERE b.id = 1 AND a.at > b.at;
COMMIT;
DROP TABLE moments;
