-- Plans no longer keep a cache of unchanged rows.
DROP TABLE settled;
