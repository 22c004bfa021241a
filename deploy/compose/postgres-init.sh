#!/bin/sh
# Makes the worker's role and database, once, when PostgreSQL of deploy/compose.yaml starts for the first time.
set -eu

# On standard input, so that the password stands in no command line. It has hexadecimal digits alone.
psql --set ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname postgres <<SQL
CREATE ROLE kf LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '$(cat /run/secrets/ledger-password)';
CREATE DATABASE kf OWNER kf ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE kf FROM PUBLIC;
SQL
