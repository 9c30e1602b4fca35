CREATE TABLE counters (name TEXT PRIMARY KEY, n BIGINT NOT NULL DEFAULT 1, note VARCHAR(10), price NUMERIC(6,2));
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET n = counters.n + excluded.n;
INSERT INTO counters (name, n) VALUES ('a', 5) ON CONFLICT (name) DO UPDATE SET n = counters.n + excluded.n RETURNING *;
INSERT INTO counters AS c (name, n, note) VALUES ('a', 10, 'x'), ('b', 2, 'y'), ('c', 3, 'z') ON CONFLICT ON CONSTRAINT counters_pkey DO UPDATE SET n = c.n * 2 + EXCLUDED.n, note = excluded.note || '!';
SELECT * FROM counters ORDER BY name;
-- DO NOTHING
INSERT INTO counters (name, n) VALUES ('a', 100), ('d', 4) ON CONFLICT DO NOTHING;
INSERT INTO counters (name, n) VALUES ('e', 1), ('e', 2) ON CONFLICT (name) DO NOTHING;
SELECT name, n FROM counters ORDER BY name;
-- WHERE, constants, defaults, now, casts
INSERT INTO counters (name, n) VALUES ('a', 1), ('b', 1) ON CONFLICT (name) DO UPDATE SET n = 0 WHERE counters.n > 10;
SELECT name, n FROM counters WHERE name IN ('a', 'b') ORDER BY name;
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET n = '7', price = 1.005, note = NULL RETURNING *;
INSERT INTO counters (name) VALUES ('a') ON CONFLICT (name) DO UPDATE SET n = excluded.n + 40, note = 'both' RETURNING *;
INSERT INTO counters (name) VALUES ('a') ON CONFLICT (name) DO UPDATE SET note = CASE WHEN excluded.n = counters.n THEN 'same' ELSE 'other' END RETURNING note;
INSERT INTO counters (name, n) VALUES ('a', 9) ON CONFLICT (name) DO UPDATE SET n = n + 1 RETURNING n;
INSERT INTO counters (name, n) VALUES ('a', 9) ON CONFLICT (name) DO UPDATE SET n = 5 WHERE false RETURNING n;
-- What is put must be right, and what becomes of it.
INSERT INTO counters (name, n) VALUES ('a', NULL) ON CONFLICT (name) DO NOTHING;
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET n = NULL;
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET note = 'far too long for it';
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET n = counters.n / 0;
INSERT INTO counters (name, n) VALUES ('f', 1), ('f', 2) ON CONFLICT (name) DO UPDATE SET n = 3;
INSERT INTO counters (name, n) VALUES ('a', 1), ('a', 2) ON CONFLICT (name) DO UPDATE SET n = 3;
-- Errors
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT DO UPDATE SET n = 3;
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (n) DO UPDATE SET n = 3;
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (nobody) DO NOTHING;
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT ON CONSTRAINT nobody DO NOTHING;
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET nobody = 3;
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET n = excluded.nobody;
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET n = nobody.n;
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET name = 'b';
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET n = (SELECT max(n) FROM counters);
INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET n = nextval('s');
INSERT INTO nobody (name, n) VALUES ('a', 1) ON CONFLICT (name) DO NOTHING;
EXPLAIN INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET n = 3;
EXPLAIN INSERT INTO counters (name, n) VALUES ('a', 1) ON CONFLICT (name) DO NOTHING;
DROP TABLE counters;
-- A composite key, checks, indexes and a view.
CREATE TABLE stock (shop INT, item INT, left_over INT NOT NULL CHECK (left_over >= 0), label TEXT, PRIMARY KEY (shop, item), UNIQUE (shop, label)) PARTITION BY (shop);
CREATE MATERIALIZED VIEW by_shop AS SELECT shop, count(*) AS items, sum(left_over) AS total FROM stock GROUP BY shop;
INSERT INTO stock VALUES (1, 1, 10, 'one'), (1, 2, 20, 'two'), (2, 1, 30, 'one');
INSERT INTO stock VALUES (1, 1, 5, 'again'), (2, 2, 7, 'new') ON CONFLICT (item, shop) DO UPDATE SET left_over = stock.left_over + excluded.left_over, label = excluded.label;
SELECT * FROM stock ORDER BY shop, item;
SELECT * FROM by_shop ORDER BY shop;
SELECT item FROM stock WHERE shop = 1 AND label = 'again';
INSERT INTO stock VALUES (1, 1, 5, 'x') ON CONFLICT (shop, item) DO UPDATE SET left_over = stock.left_over - 100;
INSERT INTO stock VALUES (1, 1, 5, 'x') ON CONFLICT (shop, item) DO UPDATE SET label = 'two';
INSERT INTO stock VALUES (1, 3, 5, 'two') ON CONFLICT (shop, item) DO NOTHING;
INSERT INTO stock VALUES (1, 1, 5, 'x') ON CONFLICT DO NOTHING;
INSERT INTO stock VALUES (1, 1, 5, 'x') ON CONFLICT (shop, label) DO NOTHING;
INSERT INTO stock VALUES (1, 1, 5, 'x') ON CONFLICT (shop) DO NOTHING;
CREATE PROCEDURE restock(wanted INT, what INT, more INT, OUT now_left INT) PARTITION ON TABLE stock COLUMN shop AS BEGIN INSERT INTO stock VALUES (wanted, what, more, NULL) ON CONFLICT (shop, item) DO UPDATE SET left_over = stock.left_over + excluded.left_over RETURNING left_over INTO now_left; END;
CALL restock(1, 1, 1);
CALL restock(1, 9, 4);
CALL restock(1, 9, 4);
SELECT * FROM by_shop ORDER BY shop;
DROP PROCEDURE restock;
DROP MATERIALIZED VIEW by_shop;
DROP TABLE stock;
-- A replicated table.
CREATE TABLE kinds (kind TEXT PRIMARY KEY, n INT) REPLICATED;
INSERT INTO kinds VALUES ('a', 1) ON CONFLICT (kind) DO UPDATE SET n = 2;
INSERT INTO kinds VALUES ('a', 1), ('b', 1) ON CONFLICT (kind) DO UPDATE SET n = kinds.n + 2;
SELECT * FROM kinds ORDER BY kind;
DROP TABLE kinds;
