# An Operator node: the eleven steps of the deployment document, in its spelling.
#
#     anylog-node process examples/operator.al
#
# Nothing has to be installed or edited: without other nodes this node keeps the ledger itself, and data goes to SQLite below
# the home directory. Whatever differs on your site is set by an environment variable of the same name in capitals, such as
# ANYLOG_SERVER_PORT, LEDGER_CONN, COMPANY_NAME, DB_TYPE; step 1 lists them all.
on error end script

# ---- 1. parameters ---------------------------------------------------------------------------------------------------
hostname = get hostname
set node_name = edge-operator
set company_name = "New Company"

set ip = 127.0.0.1
set external_ip = 127.0.0.1
set anylog_server_port = 32148
set anylog_rest_port = 32149

set db_type = sqlite
set db_ip = 127.0.0.1
set db_port = 5432
set db_user = anylog
set db_password = demo
set memory = true

sync_time = 30 seconds
set cluster_name = edge-cluster
set loc = "37.425423, -122.078360"
set country = US
set state = CA
set city = "Mountain View"

set default_dbms = test
set table_name = *
set partition_column = insert_timestamp
partition_interval = 1 day
partition_sync = 1 day
set partition_keep = 3

set mqtt_log = false
set mqtt_topic_name = anylog-demo
set mqtt_topic_dbms = test
set mqtt_topic_table = rand_data
mqtt_column_timestamp = bring [timestamp]
mqtt_column_value = bring [value]
set mqtt_column_value_type = float

if $NODE_NAME then node_name = $NODE_NAME
if $COMPANY_NAME then company_name = $COMPANY_NAME
if $IP then set ip = $IP
if $EXTERNAL_IP then set external_ip = $EXTERNAL_IP
if $ANYLOG_SERVER_PORT then anylog_server_port = $ANYLOG_SERVER_PORT
if $ANYLOG_REST_PORT then anylog_rest_port = $ANYLOG_REST_PORT
if $DB_TYPE then db_type = $DB_TYPE
if $DB_IP then db_ip = $DB_IP
if $DB_PORT then db_port = $DB_PORT
if $DB_USER then db_user = $DB_USER
if $DB_PASSWD then db_password = $DB_PASSWD
if $DB_PASSWORD then db_password = $DB_PASSWORD
if $CLUSTER_NAME then cluster_name = $CLUSTER_NAME
if $SYNC_TIME then sync_time = $SYNC_TIME
if $PARTITION_COLUMN then partition_column = $PARTITION_COLUMN
if $PARTITION_INTERVAL then partition_interval = $PARTITION_INTERVAL
if $PARTITION_KEEP then set partition_keep = $PARTITION_KEEP

set port = !anylog_server_port
ledger_conn = !external_ip + : + !anylog_server_port
if $LEDGER_CONN then ledger_conn = $LEDGER_CONN
create work directories

# Without a master elsewhere (LEDGER_CONN) this node is the master: it keeps the ledger in a database of its own.
if not $LEDGER_CONN then
do connect dbms blockchain where type=!db_type and ip=!db_ip and port=!db_port and user=!db_user and password=!db_password
do create table ledger where dbms=blockchain

# ---- 2. TCP, REST and message broker ---------------------------------------------------------------------------------
# The broker is declared at the port of the TCP server: one port serves both, told apart by a connection's first bytes.
run tcp server !external_ip !anylog_server_port !ip !anylog_server_port
run rest server !ip !anylog_rest_port
run message broker !external_ip !anylog_server_port !ip !anylog_server_port

# ---- 3. almgm and its table of ingested files ------------------------------------------------------------------------
connect dbms almgm where type=!db_type and ip=!db_ip and port=!db_port and user=!db_user and password=!db_password
create table tsd_info where dbms=almgm

# ---- 4. the database of device data ----------------------------------------------------------------------------------
connect dbms test where type=!db_type and ip=!db_ip and port=!db_port and user=!db_user and password=!db_password

# ---- 5. system_query, in memory --------------------------------------------------------------------------------------
connect dbms system_query where type=!db_type and memory=!memory

# ---- 6. scheduler and synchronisation of the ledger ------------------------------------------------------------------
run scheduler 1
run blockchain sync where source=master and time=!sync_time and dest=file and connection=!ledger_conn

# ---- 7. cluster policy, declared once --------------------------------------------------------------------------------
<new_policy={"cluster": {
    "company": !company_name,
    "dbms": !default_dbms,
    "name": !cluster_name,
    "master": !ledger_conn
}}>

policy = blockchain get cluster where name=!cluster_name and company=!company_name bring.first

if not !policy
do blockchain prepare policy !new_policy
do blockchain insert where policy=!new_policy and local=true and master=!ledger_conn

# ---- 8. operator policy, declared once -------------------------------------------------------------------------------
cluster_id = blockchain get cluster where name=!cluster_name and company=!company_name bring.first [cluster][id]

<new_policy={"operator": {
    "hostname": !hostname,
    "name": !node_name,
    "company": !company_name,
    "local_ip": !ip,
    "ip": !external_ip,
    "port" : !anylog_server_port.int,
    "rest_port": !anylog_rest_port.int,
    "cluster": !cluster_id,
    "loc": !loc,
    "country": !country,
    "state": !state,
    "city": !city
}}>

policy = blockchain get operator where ip = !external_ip and local_ip = !ip and company=!company_name and port=!anylog_server_port

# The policy stays local here; synchronisation delivers it to the master.
if not !policy then
do blockchain prepare policy !new_policy
do blockchain insert where policy=!new_policy and local=true and

# ---- 9. partitions, and the task that drops old ones -----------------------------------------------------------------
partition !default_dbms !table_name using !partition_column by !partition_interval
schedule time=!partition_sync and name="Drop Partitions" task drop partition where dbms=!default_dbms and table =!table_name and keep=!partition_keep

# ---- 10. messages of a topic become rows -----------------------------------------------------------------------------
<run mqtt client where broker=local and port=!port and log=!mqtt_log and topic=(
   name=!mqtt_topic_name and
   dbms=!mqtt_topic_dbms and
   table=!mqtt_topic_table and
   column.timestamp.timestamp=!mqtt_column_timestamp and
   column.value=(value=!mqtt_column_value and type=!mqtt_column_value_type)
)>

# ---- 11. operator ----------------------------------------------------------------------------------------------------
# Immediate: a row can be queried when its message is acknowledged.
set buffer threshold where write_immediate = true

run data distributor  # Optional

operator_id = blockchain get operator where ip = !external_ip and local_ip = !ip and company=!company_name and port=!anylog_server_port bring [operator][id]
run operator where create_table=true and update_tsd_info=true and archive=true and distributor=true and master=!ledger_conn and policy=!operator_id
