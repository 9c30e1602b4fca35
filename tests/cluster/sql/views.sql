-- Views and materialized views.
CREATE TABLE orders (customer INT, id INT, item TEXT, quantity INT, price NUMERIC(10,2), PRIMARY KEY (customer, id));
INSERT INTO orders VALUES (1, 1, 'pen', 2, 1.50), (1, 2, 'ink', 1, 8.00), (2, 1, 'pen', 5, 1.40), (3, 1, 'paper', NULL, 4.25), (3, 2, 'pen', 1, NULL);

-- Plain views are planned into the statements that read them.
CREATE VIEW pens AS SELECT customer, id, quantity * price AS total FROM orders WHERE item = 'pen';
SELECT * FROM pens ORDER BY customer, id;
SELECT total FROM pens WHERE customer = 2;
EXPLAIN SELECT total FROM pens WHERE customer = 2;
CREATE VIEW dear (who, how_much) AS SELECT customer, total FROM pens WHERE total > 2;
SELECT * FROM dear ORDER BY who;
CREATE VIEW pens AS SELECT 1;
CREATE OR REPLACE VIEW pens AS SELECT id FROM orders;
CREATE OR REPLACE VIEW pens AS SELECT customer, id, quantity * price AS total, item FROM orders WHERE item LIKE 'p%';
SELECT * FROM pens ORDER BY customer, id;
CREATE OR REPLACE VIEW pens AS SELECT who AS customer, 1 AS id, how_much AS total, '' AS item FROM dear;
CREATE VIEW twice (id, id) AS SELECT id, customer FROM orders;
CREATE VIEW with_parameter AS SELECT id FROM orders WHERE id = $1;
CREATE VIEW missing AS SELECT * FROM nowhere;
CREATE TEMPORARY VIEW passing AS SELECT 1 AS one;
INSERT INTO pens VALUES (1, 1, 1, 'x');
UPDATE pens SET total = 1;
DELETE FROM pens;
TRUNCATE pens;
DROP TABLE pens;
ALTER TABLE pens ADD COLUMN x INT;
CREATE INDEX ON pens (total);
DROP TABLE orders;
DROP VIEW pens;
CREATE VIEW all_orders AS SELECT * FROM orders;
ALTER TABLE orders ADD COLUMN note TEXT;
SELECT * FROM all_orders WHERE customer = 1;
SELECT name, is_materialized, state, columns, source, definition FROM system.views ORDER BY name;
DROP VIEW IF EXISTS pens, dear, all_orders, nothing;
DROP VIEW pens;
DROP VIEW orders;
SELECT * FROM pens;

-- A materialized view by customer: the rows of a customer lie in one partition.
CREATE MATERIALIZED VIEW by_customer AS SELECT customer, COUNT(*), COUNT(quantity) AS counted, SUM(quantity) AS quantity, MIN(price) AS cheapest, MAX(price) AS dearest, SUM(quantity * price) AS total, AVG(quantity) AS average FROM orders GROUP BY customer;
SELECT * FROM by_customer ORDER BY customer;
EXPLAIN SELECT quantity FROM by_customer WHERE customer = 1;
SELECT count, total FROM by_customer WHERE customer = 1;
UPDATE orders SET quantity = 10 WHERE customer = 3;
INSERT INTO orders VALUES (1, 3, 'paper', 3, 0.50);
SELECT * FROM by_customer ORDER BY customer;
DELETE FROM orders WHERE customer = 1 AND id = 3;
DELETE FROM orders WHERE customer = 2;
SELECT * FROM by_customer ORDER BY customer;

-- By item: every partition has a part of an item's rows, added up when they are read.
CREATE MATERIALIZED VIEW by_item (item, orders, pieces, least, average) AS SELECT item, COUNT(*), SUM(quantity), MIN(quantity), AVG(price) FROM orders WHERE quantity > 0 GROUP BY item HAVING COUNT(*) > 0;
INSERT INTO orders VALUES (4, 1, 'pen', 7, 2.00), (5, 1, 'pen', 0, 2.00), (6, 1, NULL, 1, 9.99);
SELECT * FROM by_item ORDER BY item;
SELECT pieces FROM by_item WHERE item = 'pen';
SELECT item, quantity FROM orders JOIN by_item USING (item) WHERE customer = 4;
UPDATE orders SET quantity = 0 WHERE item = 'pen' AND customer = 4;
UPDATE orders SET item = 'ink' WHERE customer = 3 AND id = 1;
SELECT * FROM by_item ORDER BY item;

-- Without GROUP BY there is one row, also of no rows.
CREATE MATERIALIZED VIEW totals AS SELECT COUNT(*) AS orders, SUM(price) AS price, MAX(item) AS last_item, COUNT(*) FILTER (WHERE item = 'pen') AS pens FROM orders;
SELECT * FROM totals;
SELECT name, table, definition FROM system.indexes ORDER BY name;
SELECT name, is_materialized, state, columns, source FROM system.views ORDER BY name;
SELECT name FROM system.tables ORDER BY name;

-- What it can't be.
CREATE MATERIALIZED VIEW v AS SELECT customer, id FROM orders;
CREATE MATERIALIZED VIEW v AS SELECT customer, COUNT(DISTINCT item) FROM orders GROUP BY customer;
CREATE MATERIALIZED VIEW v AS SELECT customer, SUM(quantity / price) FROM orders GROUP BY customer;
CREATE MATERIALIZED VIEW v AS SELECT customer, MIN(quantity + 1) FROM orders GROUP BY customer;
CREATE MATERIALIZED VIEW v AS SELECT a.customer, COUNT(*) FROM orders a JOIN orders b ON a.id = b.id GROUP BY a.customer;
CREATE MATERIALIZED VIEW v AS SELECT customer, COUNT(*) FROM orders WHERE 10 / quantity > 1 GROUP BY customer;
CREATE MATERIALIZED VIEW v AS SELECT customer, COUNT(*) FROM by_item GROUP BY customer;
CREATE MATERIALIZED VIEW by_item AS SELECT customer, COUNT(*) FROM orders GROUP BY customer;
CREATE MATERIALIZED VIEW IF NOT EXISTS by_item AS SELECT customer, COUNT(*) FROM orders GROUP BY customer;
INSERT INTO by_item VALUES ('x', 1, 1, 1, 1);
UPDATE by_item SET pieces = 1;
DELETE FROM totals;
TRUNCATE by_item;
CREATE INDEX ON by_item (pieces);
DROP INDEX by_item_quantity_idx;
DROP TABLE by_item;
DROP VIEW by_item;
DROP MATERIALIZED VIEW orders;
DROP TABLE orders;

-- Views over materialized ones; everything follows TRUNCATE.
CREATE VIEW popular AS SELECT item, pieces FROM by_item WHERE pieces > 2;
SELECT * FROM popular ORDER BY item;
DROP MATERIALIZED VIEW by_item;
TRUNCATE orders;
SELECT * FROM by_customer;
SELECT * FROM by_item;
SELECT * FROM totals;
INSERT INTO orders VALUES (1, 1, 'pen', 3, 1.00);
SELECT * FROM popular;
SELECT * FROM totals;
DROP VIEW popular;
DROP MATERIALIZED VIEW by_item, by_customer, totals;
DROP TABLE orders;
