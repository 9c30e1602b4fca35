-- One session
CREATE TABLE prices (id INT PRIMARY KEY, cents BIGINT) REPLICATED;
CREATE TABLE talks (phone BIGINT PRIMARY KEY, cost BIGINT);
INSERT INTO prices VALUES (1, 5), (2, 20);
BEGIN;
UPDATE prices SET cents = cents * 2;
SELECT * FROM prices ORDER BY id;
INSERT INTO prices VALUES (3, 1) RETURNING *;
DELETE FROM prices WHERE id = 1;
INSERT INTO talks VALUES (1, 1), (2, 2), (3, 3), (4, 4);
SELECT count(*), sum(cents) FROM prices;
SAVEPOINT s;
DELETE FROM prices;
SELECT count(*) FROM prices;
ROLLBACK TO s;
COMMIT;
SELECT * FROM prices ORDER BY id;
BEGIN;
UPDATE prices SET cents = 0;
ROLLBACK;
SELECT * FROM prices ORDER BY id;
BEGIN READ ONLY;
SELECT * FROM prices ORDER BY id;
SELECT count(*) FROM talks;
COMMIT;
-- Each partition has all of it, whatever it is asked by.
CREATE PROCEDURE look_at(p BIGINT, OUT total BIGINT) PARTITION ON TABLE talks COLUMN phone AS $$ DECLARE r RECORD; BEGIN total := 0; FOR r IN SELECT * FROM prices LOOP total := total + r.cents; END LOOP; END $$;
CALL look_at(1, NULL);
CALL look_at(2, NULL);
CALL look_at(3, NULL);
CALL look_at(4, NULL);
CALL look_at(5, NULL);
CALL look_at(6, NULL);
-- A key that is computed from the arguments is looked up, but for one of the statement's time.
CREATE PROCEDURE price_of(p BIGINT, OUT cents BIGINT) PARTITION ON TABLE talks COLUMN phone AS $$ BEGIN SELECT prices.cents INTO cents FROM prices WHERE id = p / 10 + 1; END $$;
CALL price_of(10, NULL);
EXPLAIN SELECT * FROM prices WHERE id = abs(-1) + 1;
CREATE TABLE moments (at TIMESTAMP PRIMARY KEY);
EXPLAIN SELECT * FROM moments WHERE at = now();
