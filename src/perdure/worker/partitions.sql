-- name: make
SELECT perdure.make_partitions() AS name
