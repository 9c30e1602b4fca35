-- One session
CREATE SEQUENCE s;
SELECT currval('s');
SELECT nextval('s');
SELECT nextval('s'), nextval('public.s'), currval('s');
SELECT nextval('"s"'::regclass) + 10 AS shifted;
SELECT currval('s'), lastval();
CREATE SEQUENCE s;
CREATE SEQUENCE IF NOT EXISTS s;
CREATE TABLE s (id INT PRIMARY KEY);
SELECT nextval('missing');
SELECT nextval('a b');
-- Options, their defaults and their errors
CREATE SEQUENCE stairs START WITH 10 INCREMENT BY 10 MAXVALUE 30 CACHE 5 NO CYCLE;
SELECT nextval('stairs'); SELECT nextval('stairs'); SELECT nextval('stairs');
SELECT nextval('stairs');
CREATE SEQUENCE down AS smallint INCREMENT -1 MINVALUE -2;
SELECT nextval('down'); SELECT nextval('down');
SELECT nextval('down');
CREATE SEQUENCE wrong INCREMENT 0;
CREATE SEQUENCE wrong MINVALUE 5 MAXVALUE 5;
CREATE SEQUENCE wrong START 0;
CREATE SEQUENCE wrong START 1 START 2;
CREATE SEQUENCE wrong CYCLE;
CREATE SEQUENCE wrong AS text;
CREATE SEQUENCE wrong GREEN;
CREATE TEMPORARY SEQUENCE wrong;
SELECT sequence_name, data_type, start_value, min_value, max_value, increment, cache, table_name, column_name, next_value FROM system.sequences ORDER BY sequence_name;
-- A value may be used anywhere in a statement of one row, and is a column's default
CREATE TABLE orders (id BIGINT DEFAULT nextval('s') PRIMARY KEY, item TEXT DEFAULT 'none', number INT);
INSERT INTO orders (item) VALUES ('pen');
SELECT * FROM orders WHERE id = currval('s');
INSERT INTO orders VALUES (DEFAULT, DEFAULT, nextval('stairs'));
ALTER SEQUENCE stairs RESTART;
INSERT INTO orders VALUES (DEFAULT, DEFAULT, nextval('stairs')), (1000, 'given', nextval('stairs') + 1), (DEFAULT, 'x', DEFAULT);
INSERT INTO orders DEFAULT VALUES;
SELECT * FROM orders ORDER BY id;
UPDATE orders SET number = nextval('stairs') WHERE id = 1000;
SELECT number, currval('stairs') FROM orders WHERE id = 1000;
UPDATE orders SET number = nextval('stairs');
DELETE FROM orders WHERE id = nextval('s');
UPDATE orders SET item = DEFAULT WHERE id = 1000;
SELECT item FROM orders WHERE id = 1000;
ALTER SEQUENCE stairs RESTART WITH 20;
ALTER SEQUENCE stairs RESTART WITH 40;
ALTER SEQUENCE stairs RESTART WITH 0;
ALTER SEQUENCE missing RESTART;
ALTER SEQUENCE IF EXISTS missing RESTART;
ALTER SEQUENCE stairs MAXVALUE 50;
ALTER SEQUENCE orders RESTART;
SELECT nextval('stairs');
SELECT setval('stairs', 10); SELECT nextval('stairs');
SELECT setval('stairs', 30, false); SELECT nextval('stairs');
SELECT setval('stairs', 30);
SELECT nextval('stairs');
SELECT setval('stairs', 31);
SELECT setval('stairs', (SELECT 10));
-- A query over tables takes one value a row
CREATE SEQUENCE counted;
SELECT item, nextval('counted') <> nextval('counted') AS differ FROM orders WHERE item <> 'none' ORDER BY item;
SELECT count(DISTINCT value) FROM (SELECT nextval('counted') AS value FROM orders);
SELECT v = w AS same FROM (SELECT n AS v, n AS w FROM (SELECT nextval('counted') AS n) AS i) AS y;
SELECT lastval() > 0;
VALUES (nextval('s')), (nextval('s'));
SELECT (SELECT nextval('s')) - lastval() AS inner, CASE WHEN true THEN 0 ELSE nextval('s') END AS not_needed;
SELECT nextval('s') WHERE false;
SELECT nextval(item) FROM orders;
SELECT nextval();
EXPLAIN INSERT INTO orders (item) VALUES ('none is taken');
-- In blocks and procedures
BEGIN;
INSERT INTO orders (item) VALUES ('in a block');
SELECT item FROM orders WHERE id = currval('s');
SELECT nextval('s') = lastval();
ROLLBACK;
BEGIN READ ONLY; SELECT nextval('s');
ROLLBACK;
BEGIN; CREATE SEQUENCE inside;
ROLLBACK;
BEGIN; DROP SEQUENCE s;
ROLLBACK;
BEGIN; SELECT setval('s', 1);
ROLLBACK;
CREATE TABLE parcels (customer INT, id BIGINT DEFAULT nextval('counted'), PRIMARY KEY (customer, id));
CREATE PROCEDURE pack(who INT, many INT, OUT ascends BOOLEAN) PARTITION ON TABLE parcels COLUMN customer AS $$
DECLARE first BIGINT;
BEGIN
  first := nextval('counted');
  INSERT INTO parcels VALUES (who, first);
  FOR i IN 2..many LOOP
    INSERT INTO parcels (customer) VALUES (who);
  END LOOP;
  ascends := nextval('counted') >= first + many;
END $$;
CALL pack(1, 3, NULL);
CALL pack(2, 500, NULL);
SELECT customer, count(*) FROM parcels GROUP BY customer ORDER BY customer;
CREATE PROCEDURE anywhere(many INT, OUT total BIGINT) AS $$
BEGIN
  FOR i IN 1..many LOOP
    INSERT INTO parcels (customer) VALUES (i + 100);
    total := nextval('counted');
  END LOOP;
  SELECT count(*) INTO total FROM parcels WHERE customer > 100;
END $$;
CALL anywhere(4, NULL);
BEGIN; CALL pack(3, 2, NULL); SELECT count(*) FROM parcels WHERE customer = 3;
ROLLBACK;
CREATE PROCEDURE wrong(OUT n BIGINT) AS $$ BEGIN n := currval('counted'); END $$;
CALL pack(nextval('down'), 1, NULL);
-- What takes a sequence's values keeps it
DROP SEQUENCE s;
DROP SEQUENCE counted;
DROP SEQUENCE stairs, down;
DROP SEQUENCE stairs;
DROP SEQUENCE IF EXISTS stairs, missing;
DROP SEQUENCE orders;
DROP PROCEDURE pack, anywhere;
DROP TABLE parcels, orders;
DROP SEQUENCE s, counted;
SELECT count(*) FROM system.sequences;
