import org.voltdb.SQLStmt;
import org.voltdb.VoltProcedure;

/** Puts rows into a table that every partition has. */
public class LoadItems extends VoltProcedure {
    public final SQLStmt insert = new SQLStmt("INSERT INTO item VALUES (?, ?, ?, ?);");

    public long run(int first, int count) {
        for (int id = first; id < first + count; id++) {
            voltQueueSQL(insert, id, "item " + id, 1 + id % 100, "x".repeat(40));
            if (id % 100 == 0) {
                voltExecuteSQL();
            }
        }
        voltExecuteSQL();
        return count;
    }
}
