#!/bin/sh
# The server's two databases: made where missing, brought to the schema of this image. May run again.
set -eu

for database in temporal visibility; do
  folder="/etc/temporal/schema/postgresql/v12/$database/versioned"
  [ "$database" = temporal ] || database=temporal_visibility
  tool() {
    temporal-sql-tool --plugin "$DB" --ep "$POSTGRES_SEEDS" -p "$DB_PORT" -u "$POSTGRES_USER" --db "$database" "$@"
  }
  tool create
  tool setup-schema -v 0.0
  tool update-schema -d "$folder"
done
