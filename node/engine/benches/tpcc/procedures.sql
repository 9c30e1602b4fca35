-- TPC-C 5.11, clause 2. What a terminal would show is what a call returns.

-- 2.4; lines: "item,warehouse,quantity" of each, with semicolons between them. A row a line, and one of the order.
CREATE PROCEDURE place_order(w INT, d INT, c INT, lines TEXT)
    RETURNS TABLE (number INT, name VARCHAR(24), pieces INT, mark VARCHAR(2), price NUMERIC(5, 2), amount NUMERIC(12, 2),
        discount NUMERIC(4, 4), tax NUMERIC(5, 4), entered TIMESTAMP)
    PARTITION ON TABLE warehouse COLUMN w_id AS $$
DECLARE
    warehouse_tax NUMERIC(4, 4);
    district_tax NUMERIC(4, 4);
    buyer RECORD;
    order_number INT;
    field TEXT;
    line INT := 0;
    article INT;
    supplier INT;
    quantity INT;
    all_local INT := 1;
    item_data VARCHAR(50);
    stock_data VARCHAR(50);
    info VARCHAR(24);
    total NUMERIC(12, 2) := 0;
BEGIN
    SELECT w_tax INTO warehouse_tax FROM warehouse WHERE w_id = w;
    UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = w AND d_id = d
        RETURNING d_tax, d_next_o_id - 1 INTO district_tax, order_number;
    SELECT c_discount, c_last, c_credit INTO buyer FROM customer WHERE c_w_id = w AND c_d_id = d AND c_id = c;
    INSERT INTO new_order VALUES (w, d, order_number);
    LOOP
        field := SPLIT_PART(lines, ';', line + 1);
        EXIT WHEN field = '';
        line := line + 1;
        article := CAST(SPLIT_PART(field, ',', 1) AS INT);
        supplier := CAST(SPLIT_PART(field, ',', 2) AS INT);
        quantity := CAST(SPLIT_PART(field, ',', 3) AS INT);
        IF supplier <> w THEN
            all_local := 0;
        END IF;
        SELECT i_price, i_name, i_data INTO price, name, item_data FROM item WHERE i_id = article;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'Item number is not valid';
        END IF;
        UPDATE stock SET
            s_quantity = CASE WHEN s_quantity >= quantity + 10 THEN s_quantity - quantity ELSE s_quantity - quantity + 91 END,
            s_ytd = s_ytd + quantity,
            s_order_cnt = s_order_cnt + 1,
            s_remote_cnt = CASE WHEN supplier = w THEN s_remote_cnt ELSE s_remote_cnt + 1 END
            WHERE s_w_id = supplier AND s_i_id = article
            RETURNING s_quantity, s_data, CASE
                    WHEN d = 1 THEN s_dist_01
                    WHEN d = 2 THEN s_dist_02
                    WHEN d = 3 THEN s_dist_03
                    WHEN d = 4 THEN s_dist_04
                    WHEN d = 5 THEN s_dist_05
                    WHEN d = 6 THEN s_dist_06
                    WHEN d = 7 THEN s_dist_07
                    WHEN d = 8 THEN s_dist_08
                    WHEN d = 9 THEN s_dist_09
                    ELSE s_dist_10
                END
            INTO pieces, stock_data, info;
        amount := quantity * price;
        total := total + amount;
        INSERT INTO order_line VALUES (w, d, order_number, line, article, supplier, NULL, quantity, amount, info);
        mark := CASE WHEN item_data LIKE '%ORIGINAL%' AND stock_data LIKE '%ORIGINAL%' THEN 'B' ELSE 'G' END;
        number := line;
        RETURN NEXT;
    END LOOP;
    INSERT INTO orders VALUES (w, d, order_number, c, now(), NULL, line, all_local);
    number := order_number;
    name := buyer.c_last;
    pieces := line;
    mark := buyer.c_credit;
    price := NULL;
    discount := buyer.c_discount;
    tax := warehouse_tax + district_tax;
    amount := total * (1 - discount) * (1 + tax);
    entered := now();
    RETURN NEXT;
END $$;

-- 2.5; the customer by number, or, when that is NULL, by name: of several the middle one by first names.
CREATE PROCEDURE pay(w INT, d INT, c_w INT, c_d INT, c INT, surname VARCHAR(16), amount NUMERIC(6, 2),
        OUT number INT, OUT warehouse_street VARCHAR(20), OUT warehouse_city VARCHAR(20), OUT district_street VARCHAR(20),
        OUT district_city VARCHAR(20), OUT first_name VARCHAR(16), OUT middle_name VARCHAR(2), OUT last_name VARCHAR(16),
        OUT street VARCHAR(20), OUT city VARCHAR(20), OUT state VARCHAR(2), OUT zip VARCHAR(9), OUT phone VARCHAR(16),
        OUT since TIMESTAMP, OUT credit VARCHAR(2), OUT credit_limit NUMERIC(12, 2), OUT discount NUMERIC(4, 4),
        OUT balance NUMERIC(12, 2), OUT note VARCHAR(500))
    PARTITION ON TABLE warehouse COLUMN w_id AS $$
DECLARE
    warehouse_name VARCHAR(10);
    district_name VARCHAR(10);
    same BIGINT;
BEGIN
    UPDATE warehouse SET w_ytd = w_ytd + amount WHERE w_id = w
        RETURNING w_name, w_street_1, w_city INTO warehouse_name, warehouse_street, warehouse_city;
    UPDATE district SET d_ytd = d_ytd + amount WHERE d_w_id = w AND d_id = d
        RETURNING d_name, d_street_1, d_city INTO district_name, district_street, district_city;
    number := c;
    IF number IS NULL THEN
        SELECT COUNT(*) INTO same FROM customer WHERE c_w_id = c_w AND c_d_id = c_d AND c_last = surname;
        same := (same + 1) / 2;
        FOR number IN SELECT c_id FROM customer WHERE c_w_id = c_w AND c_d_id = c_d AND c_last = surname ORDER BY c_first LOOP
            same := same - 1;
            EXIT WHEN same = 0;
        END LOOP;
    END IF;
    UPDATE customer SET
        c_balance = c_balance - amount,
        c_ytd_payment = c_ytd_payment + amount,
        c_payment_cnt = c_payment_cnt + 1,
        c_data = CASE WHEN c_credit = 'BC' THEN
            LEFT(CAST(number AS TEXT) || ' ' || CAST(c_d AS TEXT) || ' ' || CAST(c_w AS TEXT) || ' ' || CAST(d AS TEXT) || ' '
                || CAST(w AS TEXT) || ' ' || CAST(amount AS TEXT) || '|' || c_data, 500) ELSE c_data END
        WHERE c_w_id = c_w AND c_d_id = c_d AND c_id = number
        RETURNING c_first, c_middle, c_last, c_street_1, c_city, c_state, c_zip, c_phone, c_since, c_credit, c_credit_lim, c_discount,
            c_balance, CASE WHEN c_credit = 'BC' THEN LEFT(c_data, 200) ELSE '' END
        INTO first_name, middle_name, last_name, street, city, state, zip, phone, since, credit, credit_limit, discount, balance, note;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no customer % %', number, surname;
    END IF;
    INSERT INTO history VALUES (w, nextval('history_id'), d, c_w, c_d, number, now(), amount, warehouse_name || '    ' || district_name);
END $$;

-- 2.6; a row a line of the customer's newest order.
CREATE PROCEDURE order_status(w INT, d INT, c INT, surname VARCHAR(16))
    RETURNS TABLE (number INT, first_name VARCHAR(16), middle_name VARCHAR(2), last_name VARCHAR(16), balance NUMERIC(12, 2),
        order_number INT, entered TIMESTAMP, carrier INT, article INT, supplier INT, quantity INT, amount NUMERIC(6, 2),
        delivered TIMESTAMP)
    PARTITION ON TABLE warehouse COLUMN w_id AS $$
DECLARE
    same BIGINT;
BEGIN
    number := c;
    IF number IS NULL THEN
        SELECT COUNT(*) INTO same FROM customer WHERE c_w_id = w AND c_d_id = d AND c_last = surname;
        same := (same + 1) / 2;
        FOR number IN SELECT c_id FROM customer WHERE c_w_id = w AND c_d_id = d AND c_last = surname ORDER BY c_first LOOP
            same := same - 1;
            EXIT WHEN same = 0;
        END LOOP;
    END IF;
    SELECT c_first, c_middle, c_last, c_balance INTO first_name, middle_name, last_name, balance FROM customer
        WHERE c_w_id = w AND c_d_id = d AND c_id = number;
    SELECT o_id, o_entry_d, o_carrier_id INTO order_number, entered, carrier FROM orders
        WHERE o_w_id = w AND o_d_id = d AND o_c_id = number ORDER BY o_id DESC LIMIT 1;
    FOR article, supplier, quantity, amount, delivered IN
        SELECT ol_i_id, ol_supply_w_id, ol_quantity, ol_amount, ol_delivery_d FROM order_line
        WHERE ol_w_id = w AND ol_d_id = d AND ol_o_id = order_number
    LOOP
        RETURN NEXT;
    END LOOP;
END $$;

-- 2.7; the oldest order of each district, in one transaction.
CREATE PROCEDURE deliver(w INT, carrier INT, OUT delivered INT) PARTITION ON TABLE warehouse COLUMN w_id AS $$
DECLARE
    order_number INT;
    buyer INT;
    total NUMERIC(12, 2);
BEGIN
    delivered := 0;
    FOR d IN 1..10 LOOP
        SELECT no_o_id INTO order_number FROM new_order WHERE no_w_id = w AND no_d_id = d ORDER BY no_o_id LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        DELETE FROM new_order WHERE no_w_id = w AND no_d_id = d AND no_o_id = order_number;
        UPDATE orders SET o_carrier_id = carrier WHERE o_w_id = w AND o_d_id = d AND o_id = order_number RETURNING o_c_id INTO buyer;
        UPDATE order_line SET ol_delivery_d = now() WHERE ol_w_id = w AND ol_d_id = d AND ol_o_id = order_number;
        SELECT SUM(ol_amount) INTO total FROM order_line WHERE ol_w_id = w AND ol_d_id = d AND ol_o_id = order_number;
        UPDATE customer SET c_balance = c_balance + total, c_delivery_cnt = c_delivery_cnt + 1
            WHERE c_w_id = w AND c_d_id = d AND c_id = buyer;
        delivered := delivered + 1;
    END LOOP;
END $$;

-- 2.8; the different items of the last 20 orders of which there is little.
CREATE PROCEDURE stock_level(w INT, d INT, threshold INT, OUT low INT) PARTITION ON TABLE warehouse COLUMN w_id AS $$
DECLARE
    next_order INT;
    first_order INT;
    article INT;
    quantity INT;
BEGIN
    low := 0;
    SELECT d_next_o_id INTO next_order FROM district WHERE d_w_id = w AND d_id = d;
    -- An INT, as the key's column is: next_order - 20 is a BIGINT, which is no bound of an INT's range.
    first_order := next_order - 20;
    FOR article IN
        SELECT DISTINCT ol_i_id FROM order_line
        WHERE ol_w_id = w AND ol_d_id = d AND ol_o_id >= first_order AND ol_o_id < next_order
    LOOP
        SELECT s_quantity INTO quantity FROM stock WHERE s_w_id = w AND s_i_id = article;
        IF quantity < threshold THEN
            low := low + 1;
        END IF;
    END LOOP;
END $$;
