"""The log: what touches a database. Runs on SQLite, PostgreSQL and MariaDB."""
