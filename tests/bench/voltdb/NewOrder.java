import org.voltdb.SQLStmt;
import org.voltdb.VoltProcedure;
import org.voltdb.VoltTable;
import org.voltdb.VoltTableRow;
import org.voltdb.VoltType;

/** An order of several items, as TPC-C has it (clause 2.4), all of them from the home warehouse. */
public class NewOrder extends VoltProcedure {
    public final SQLStmt warehouse = new SQLStmt("SELECT w_tax FROM warehouse WHERE w_id = ?;");
    public final SQLStmt district = new SQLStmt("SELECT d_tax, d_next_o_id FROM district WHERE d_w_id = ? AND d_id = ?;");
    public final SQLStmt customer =
        new SQLStmt("SELECT c_discount, c_last, c_credit FROM customer WHERE c_w_id = ? AND c_d_id = ? AND c_id = ?;");
    public final SQLStmt item = new SQLStmt("SELECT i_price, i_name, i_data FROM item WHERE i_id = ?;");
    public final SQLStmt stock = new SQLStmt("SELECT s_quantity, s_dist FROM stock WHERE s_w_id = ? AND s_i_id = ?;");
    public final SQLStmt nextOrder =
        new SQLStmt("UPDATE district SET d_next_o_id = ? WHERE d_w_id = ? AND d_id = ?;");
    public final SQLStmt order = new SQLStmt("INSERT INTO orders VALUES (?, ?, ?, ?, ?, NULL, ?);");
    public final SQLStmt newOrder = new SQLStmt("INSERT INTO new_order VALUES (?, ?, ?);");
    public final SQLStmt takeStock = new SQLStmt(
        "UPDATE stock SET s_quantity = ?, s_ytd = s_ytd + ?, s_order_cnt = s_order_cnt + 1 WHERE s_w_id = ? AND s_i_id = ?;");
    public final SQLStmt line = new SQLStmt("INSERT INTO order_line VALUES (?, ?, ?, ?, ?, ?, ?, ?);");

    public VoltTable run(int w, int d, int c, int[] items, int[] quantities) {
        voltQueueSQL(warehouse, w);
        voltQueueSQL(district, w, d);
        voltQueueSQL(customer, w, d, c);
        for (int id : items) {
            voltQueueSQL(item, id);
            voltQueueSQL(stock, w, id);
        }
        VoltTable[] found = voltExecuteSQL();
        double warehouseTax = found[0].fetchRow(0).getDouble(0);
        double districtTax = found[1].fetchRow(0).getDouble(0);
        long number = found[1].fetchRow(0).getLong(1);
        double discount = found[2].fetchRow(0).getDouble(0);
        voltQueueSQL(nextOrder, number + 1, w, d);
        voltQueueSQL(order, w, d, number, c, getTransactionTime(), items.length);
        voltQueueSQL(newOrder, w, d, number);
        double total = 0;
        for (int i = 0; i < items.length; i++) {
            VoltTable ofItem = found[3 + 2 * i];
            if (ofItem.getRowCount() == 0) {
                throw new VoltAbortException("no item " + items[i]);
            }
            double price = ofItem.fetchRow(0).getDouble(0);
            VoltTableRow ofStock = found[4 + 2 * i].fetchRow(0);
            int quantity = quantities[i];
            long left = ofStock.getLong(0);
            left = left >= quantity + 10 ? left - quantity : left - quantity + 91;
            voltQueueSQL(takeStock, left, quantity, w, items[i]);
            voltQueueSQL(line, w, d, number, i + 1, items[i], quantity, quantity * price, ofStock.getString(1));
            total += quantity * price;
        }
        voltExecuteSQL(true);
        VoltTable result = new VoltTable(new VoltTable.ColumnInfo("total", VoltType.FLOAT));
        result.addRow(total * (1 - discount) * (1 + warehouseTax + districtTax));
        return result;
    }
}
