//! Memcomparable keys: comparing the bytes compares the values, column by column.
