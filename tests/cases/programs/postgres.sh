# A server in a new data folder, and a client beside it that is fed through a FIFO.
set -e
cd /usr/lib/postgresql/*/bin
data=/tmp/data
./initdb --pgdata $data --auth trust --no-sync >/tmp/initdb.log
echo 'host all all all trust' >>$data/pg_hba.conf
cat >>$data/postgresql.conf <<END
listen_addresses = '*'
unix_socket_directories = '/tmp'
shared_buffers = 32MB
END
mkfifo /tmp/in
./postgres -D $data &
until ./pg_isready -q -h 127.0.0.1; do sleep 0.05; done
./psql -h 127.0.0.1 -U postgres -At postgres <>/tmp/in >/tmp/out 2>&1 &
wait
