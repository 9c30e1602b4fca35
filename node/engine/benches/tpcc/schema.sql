-- TPC-C 5.11, clause 1.3. Fixed texts are VARCHARs; a history row, which has no key there, has a number.
CREATE TABLE item (
    i_id INT PRIMARY KEY, i_im_id INT NOT NULL, i_name VARCHAR(24) NOT NULL, i_price NUMERIC(5, 2) NOT NULL, i_data VARCHAR(50) NOT NULL
) REPLICATED WITH REPLICATION = 0;
CREATE TABLE warehouse (
    w_id INT PRIMARY KEY, w_name VARCHAR(10) NOT NULL, w_street_1 VARCHAR(20) NOT NULL, w_street_2 VARCHAR(20) NOT NULL,
    w_city VARCHAR(20) NOT NULL, w_state VARCHAR(2) NOT NULL, w_zip VARCHAR(9) NOT NULL, w_tax NUMERIC(4, 4) NOT NULL,
    w_ytd NUMERIC(12, 2) NOT NULL
) WITH REPLICATION = 0;
CREATE TABLE district (
    d_w_id INT, d_id INT, d_name VARCHAR(10) NOT NULL, d_street_1 VARCHAR(20) NOT NULL, d_street_2 VARCHAR(20) NOT NULL,
    d_city VARCHAR(20) NOT NULL, d_state VARCHAR(2) NOT NULL, d_zip VARCHAR(9) NOT NULL, d_tax NUMERIC(4, 4) NOT NULL,
    d_ytd NUMERIC(12, 2) NOT NULL, d_next_o_id INT NOT NULL, PRIMARY KEY (d_w_id, d_id)
) WITH REPLICATION = 0;
CREATE TABLE customer (
    c_w_id INT, c_d_id INT, c_id INT, c_first VARCHAR(16) NOT NULL, c_middle VARCHAR(2) NOT NULL, c_last VARCHAR(16) NOT NULL,
    c_street_1 VARCHAR(20) NOT NULL, c_street_2 VARCHAR(20) NOT NULL, c_city VARCHAR(20) NOT NULL, c_state VARCHAR(2) NOT NULL,
    c_zip VARCHAR(9) NOT NULL, c_phone VARCHAR(16) NOT NULL, c_since TIMESTAMP NOT NULL, c_credit VARCHAR(2) NOT NULL,
    c_credit_lim NUMERIC(12, 2) NOT NULL, c_discount NUMERIC(4, 4) NOT NULL, c_balance NUMERIC(12, 2) NOT NULL,
    c_ytd_payment NUMERIC(12, 2) NOT NULL, c_payment_cnt INT NOT NULL, c_delivery_cnt INT NOT NULL, c_data VARCHAR(500) NOT NULL,
    PRIMARY KEY (c_w_id, c_d_id, c_id)
) WITH REPLICATION = 0;
CREATE INDEX customer_by_name ON customer (c_w_id, c_d_id, c_last, c_first);
CREATE SEQUENCE history_id;
CREATE TABLE history (
    h_w_id INT, h_id BIGINT, h_d_id INT NOT NULL, h_c_w_id INT NOT NULL, h_c_d_id INT NOT NULL, h_c_id INT NOT NULL,
    h_date TIMESTAMP NOT NULL, h_amount NUMERIC(6, 2) NOT NULL, h_data VARCHAR(24) NOT NULL, PRIMARY KEY (h_w_id, h_id)
) WITH REPLICATION = 0;
CREATE TABLE stock (
    s_w_id INT, s_i_id INT, s_quantity INT NOT NULL, s_dist_01 VARCHAR(24) NOT NULL, s_dist_02 VARCHAR(24) NOT NULL, s_dist_03 VARCHAR(24) NOT NULL,
    s_dist_04 VARCHAR(24) NOT NULL, s_dist_05 VARCHAR(24) NOT NULL, s_dist_06 VARCHAR(24) NOT NULL, s_dist_07 VARCHAR(24) NOT NULL,
    s_dist_08 VARCHAR(24) NOT NULL, s_dist_09 VARCHAR(24) NOT NULL, s_dist_10 VARCHAR(24) NOT NULL, s_ytd INT NOT NULL,
    s_order_cnt INT NOT NULL, s_remote_cnt INT NOT NULL, s_data VARCHAR(50) NOT NULL, PRIMARY KEY (s_w_id, s_i_id)
) WITH REPLICATION = 0;
CREATE TABLE orders (
    o_w_id INT, o_d_id INT, o_id INT, o_c_id INT NOT NULL, o_entry_d TIMESTAMP NOT NULL, o_carrier_id INT, o_ol_cnt INT NOT NULL,
    o_all_local INT NOT NULL, PRIMARY KEY (o_w_id, o_d_id, o_id)
) WITH REPLICATION = 0;
CREATE INDEX orders_by_customer ON orders (o_w_id, o_d_id, o_c_id, o_id);
CREATE TABLE new_order (no_w_id INT, no_d_id INT, no_o_id INT, PRIMARY KEY (no_w_id, no_d_id, no_o_id)) WITH REPLICATION = 0;
CREATE TABLE order_line (
    ol_w_id INT, ol_d_id INT, ol_o_id INT, ol_number INT, ol_i_id INT NOT NULL, ol_supply_w_id INT NOT NULL, ol_delivery_d TIMESTAMP,
    ol_quantity INT NOT NULL, ol_amount NUMERIC(6, 2) NOT NULL, ol_dist_info VARCHAR(24) NOT NULL,
    PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number)
) WITH REPLICATION = 0;
