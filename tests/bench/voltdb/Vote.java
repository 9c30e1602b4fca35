import org.voltdb.SQLStmt;
import org.voltdb.VoltProcedure;
import org.voltdb.VoltTable;

/** A vote: of a known contestant, from a phone that has votes left. */
public class Vote extends VoltProcedure {
    public final SQLStmt contestant = new SQLStmt("SELECT id FROM contestants WHERE id = ?;");
    public final SQLStmt state = new SQLStmt("SELECT state FROM area_codes WHERE code = ?;");
    public final SQLStmt votes = new SQLStmt("SELECT votes FROM votes_by_phone WHERE phone = ?;");
    public final SQLStmt insert = new SQLStmt("INSERT INTO votes VALUES (?, ?, ?);");

    public long run(long phone, int wanted, long most) {
        voltQueueSQL(contestant, wanted);
        voltQueueSQL(state, (short) (phone / 10_000_000L));
        voltQueueSQL(votes, phone);
        VoltTable[] found = voltExecuteSQL();
        if (found[0].getRowCount() == 0) {
            return 1;
        }
        if (found[2].getRowCount() > 0 && found[2].asScalarLong() >= most) {
            return 2;
        }
        String from = found[1].getRowCount() > 0 ? found[1].fetchRow(0).getString(0) : "XX";
        voltQueueSQL(insert, phone, wanted, from);
        voltExecuteSQL(true);
        return 0;
    }
}
