-- The tables of tests/bench/voltdb/schema.sql, as one has them here.
CREATE TABLE kv (k BIGINT PRIMARY KEY, v VARCHAR(100)) WITH REPLICATION = 0;
CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL) WITH REPLICATION = 0;
CREATE TABLE contestants (id INT PRIMARY KEY, name VARCHAR(50) NOT NULL) REPLICATED WITH REPLICATION = 0;
CREATE TABLE area_codes (code BIGINT PRIMARY KEY, state VARCHAR(2) NOT NULL) REPLICATED WITH REPLICATION = 0;
CREATE TABLE votes (phone BIGINT, vote BIGINT, contestant INT NOT NULL, state VARCHAR(2) NOT NULL, PRIMARY KEY (phone, vote)) WITH REPLICATION = 0;
CREATE MATERIALIZED VIEW votes_by_phone AS SELECT phone, COUNT(*) AS votes FROM votes GROUP BY phone;
CREATE MATERIALIZED VIEW votes_by_state AS SELECT contestant, state, COUNT(*) AS votes FROM votes GROUP BY contestant, state;
CREATE TABLE item (i_id INT PRIMARY KEY, i_name VARCHAR(24), i_price DOUBLE PRECISION, i_data VARCHAR(50)) REPLICATED WITH REPLICATION = 0;
CREATE TABLE warehouse (w_id INT PRIMARY KEY, w_name VARCHAR(10), w_tax DOUBLE PRECISION, w_ytd DOUBLE PRECISION) WITH REPLICATION = 0;
CREATE TABLE district (d_w_id INT, d_id INT, d_tax DOUBLE PRECISION, d_ytd DOUBLE PRECISION, d_next_o_id INT, PRIMARY KEY (d_w_id, d_id)) WITH REPLICATION = 0;
CREATE TABLE customer (c_w_id INT, c_d_id INT, c_id INT, c_last VARCHAR(16), c_credit VARCHAR(2), c_discount DOUBLE PRECISION, c_balance DOUBLE PRECISION, c_data VARCHAR(500), PRIMARY KEY (c_w_id, c_d_id, c_id)) WITH REPLICATION = 0;
CREATE TABLE stock (s_w_id INT, s_i_id INT, s_quantity INT, s_dist VARCHAR(24), s_ytd INT, s_order_cnt INT, s_data VARCHAR(50), PRIMARY KEY (s_w_id, s_i_id)) WITH REPLICATION = 0;
CREATE TABLE orders (o_w_id INT, o_d_id INT, o_id INT, o_c_id INT, o_entry_d TIMESTAMP, o_carrier_id INT, o_ol_cnt INT, PRIMARY KEY (o_w_id, o_d_id, o_id)) WITH REPLICATION = 0;
CREATE TABLE new_order (no_w_id INT, no_d_id INT, no_o_id INT, PRIMARY KEY (no_w_id, no_d_id, no_o_id)) WITH REPLICATION = 0;
CREATE TABLE order_line (ol_w_id INT, ol_d_id INT, ol_o_id INT, ol_number INT, ol_i_id INT, ol_quantity INT, ol_amount DOUBLE PRECISION, ol_dist_info VARCHAR(24), PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number)) WITH REPLICATION = 0;

CREATE PROCEDURE vote(caller BIGINT, wanted INT, most BIGINT, OUT result INT)
    PARTITION ON TABLE votes COLUMN phone AS $$
DECLARE
    known INT;
    home VARCHAR(2);
    before BIGINT;
BEGIN
    SELECT id INTO known FROM contestants WHERE id = wanted;
    IF NOT FOUND THEN
        result := 1;
        RETURN;
    END IF;
    SELECT votes INTO before FROM votes_by_phone WHERE phone = caller;
    IF before >= most THEN
        result := 2;
        RETURN;
    END IF;
    SELECT state INTO home FROM area_codes WHERE code = caller / 10000000;
    INSERT INTO votes VALUES (caller, COALESCE(before, 0), wanted, COALESCE(home, 'XX'));
    result := 0;
END $$;

CREATE PROCEDURE transfer(source BIGINT, target BIGINT, amount BIGINT) AS $$
DECLARE
    before BIGINT;
BEGIN
    SELECT balance INTO before FROM accounts WHERE id = source;
    IF before < amount THEN
        RAISE EXCEPTION 'there is less than %', amount;
    END IF;
    UPDATE accounts SET balance = balance - amount WHERE id = source;
    UPDATE accounts SET balance = balance + amount WHERE id = target;
END $$;

CREATE PROCEDURE place_order(w INT, d INT, c INT, lines TEXT, OUT total DOUBLE PRECISION)
    PARTITION ON TABLE warehouse COLUMN w_id AS $$
DECLARE
    tax DOUBLE PRECISION;
    district_tax DOUBLE PRECISION;
    number INT;
    buyer RECORD;
    line INT := 0;
    field TEXT;
    article INT;
    quantity INT;
    price DOUBLE PRECISION;
    name VARCHAR(24);
    data VARCHAR(50);
    dist VARCHAR(24);
BEGIN
    SELECT w_tax INTO tax FROM warehouse WHERE w_id = w;
    UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = w AND d_id = d RETURNING d_tax, d_next_o_id - 1 INTO district_tax, number;
    SELECT c_discount, c_last, c_credit INTO buyer FROM customer WHERE c_w_id = w AND c_d_id = d AND c_id = c;
    total := 0;
    LOOP
        field := SPLIT_PART(lines, ',', 2 * line + 1);
        EXIT WHEN field = '';
        article := CAST(field AS INT);
        quantity := CAST(SPLIT_PART(lines, ',', 2 * line + 2) AS INT);
        line := line + 1;
        SELECT i_price, i_name, i_data INTO price, name, data FROM item WHERE i_id = article;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'no item %', article;
        END IF;
        UPDATE stock SET s_quantity = CASE WHEN s_quantity >= quantity + 10 THEN s_quantity - quantity ELSE s_quantity - quantity + 91 END,
            s_ytd = s_ytd + quantity, s_order_cnt = s_order_cnt + 1
            WHERE s_w_id = w AND s_i_id = article RETURNING s_dist INTO dist;
        INSERT INTO order_line VALUES (w, d, number, line, article, quantity, quantity * price, dist);
        total := total + quantity * price;
    END LOOP;
    INSERT INTO orders VALUES (w, d, number, c, now(), NULL, line);
    INSERT INTO new_order VALUES (w, d, number);
    total := total * (1 - buyer.c_discount) * (1 + tax + district_tax);
END $$;
