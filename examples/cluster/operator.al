# A member of a cluster: the operator of examples/network with mates. Every member holds all that any of them was sent; an
# acknowledged reading is on two of them, so that the loss of one loses nothing.
#
#     NODE_NAME=north-1 anylog-node --home /tmp/cluster/north-1 process examples/cluster/operator.al
#
# Whatever differs on your site is set by an environment variable of the same name in capitals; step 1 lists them all.
# Operators on one machine need names, ports and homes of their own.
on error end script

# ---- 1. parameters ---------------------------------------------------------------------------------------------------
hostname = get hostname
set node_name = north-1
set company_name = "New Company"
set ledger_conn = 127.0.0.1:32048

set ip = 127.0.0.1
set external_ip = 127.0.0.1
set anylog_server_port = 32148
set anylog_rest_port = 32149

set db_type = sqlite
set db_ip = 127.0.0.1
set db_port = 5432
set db_user = anylog
set db_password = demo

sync_time = 30 seconds
set cluster_name = north
# On how many members a reading is when it is acknowledged: replicated(k), or local for this one only.
set ack = replicated(2)
# How far back a new member is filled.
set consumer_start = -30d
# The member of a cluster that is asked first.
set main = false

set default_dbms = plant
set table_name = *
set partition_column = insert_timestamp
partition_interval = 1 day
partition_sync = 1 day
set partition_keep = 3

set mqtt_topic_name = plant/pumps
set mqtt_topic_table = pumps

if $NODE_NAME then node_name = $NODE_NAME
if $COMPANY_NAME then company_name = $COMPANY_NAME
if $LEDGER_CONN then ledger_conn = $LEDGER_CONN
if $IP then set ip = $IP
if $EXTERNAL_IP then set external_ip = $EXTERNAL_IP
if $ANYLOG_SERVER_PORT then anylog_server_port = $ANYLOG_SERVER_PORT
if $ANYLOG_REST_PORT then anylog_rest_port = $ANYLOG_REST_PORT
# The port by which other nodes reach the TCP server, where it is not the server's own: behind a port mapping.
external_port = !anylog_server_port
if $EXTERNAL_PORT then external_port = $EXTERNAL_PORT
if $DB_TYPE then db_type = $DB_TYPE
if $DB_IP then db_ip = $DB_IP
if $DB_PORT then db_port = $DB_PORT
if $DB_USER then db_user = $DB_USER
if $DB_PASSWORD then db_password = $DB_PASSWORD
if $SYNC_TIME then sync_time = $SYNC_TIME
if $CLUSTER_NAME then cluster_name = $CLUSTER_NAME
if $MAIN then main = $MAIN
if $ACK then ack = $ACK
if $CONSUMER_START then consumer_start = $CONSUMER_START
if $PARTITION_COLUMN then partition_column = $PARTITION_COLUMN
if $PARTITION_INTERVAL then partition_interval = $PARTITION_INTERVAL
if $PARTITION_KEEP then set partition_keep = $PARTITION_KEEP

create work directories

# ---- 2. TCP, REST and message broker, the broker at the port of the TCP server ---------------------------------------
run tcp server !external_ip !external_port !ip !anylog_server_port
run rest server !ip !anylog_rest_port
run message broker !external_ip !anylog_server_port !ip !anylog_server_port

# ---- 3. almgm and its table of ingested files ------------------------------------------------------------------------
connect dbms almgm where type=!db_type and ip=!db_ip and port=!db_port and user=!db_user and password=!db_password
create table tsd_info where dbms=almgm

# ---- 4. the database of device data ----------------------------------------------------------------------------------
connect dbms !default_dbms where type=!db_type and ip=!db_ip and port=!db_port and user=!db_user and password=!db_password

# ---- 5. system_query, in memory --------------------------------------------------------------------------------------
connect dbms system_query where type=!db_type and memory=true

# ---- 6. scheduler and synchronisation of the ledger ------------------------------------------------------------------
run scheduler 1
run blockchain sync where source=master and time=!sync_time and dest=file and connection=!ledger_conn

# ---- 7. cluster policy, declared once: by the first of its members ---------------------------------------------------
<new_policy={"cluster": {
    "company": !company_name,
    "name": !cluster_name
}}>

policy = blockchain get cluster where name=!cluster_name and company=!company_name bring.first

# Another member may declare the cluster at the same moment: then it is refused here, and comes with the ledger.
on error ignore
if not !policy then
do blockchain prepare policy !new_policy
do blockchain insert where policy=!new_policy and local=true and master=!ledger_conn
on error end script
blockchain wait where command = "blockchain get cluster where name=!cluster_name and company=!company_name"

# ---- 8. operator policy, declared once -------------------------------------------------------------------------------
# A member is known by the id of its policy, found here by its name: it may come back with another address, and with an empty
# disk, which its mates fill.
cluster_id = blockchain get cluster where name=!cluster_name and company=!company_name bring.first [cluster][id]

<new_policy={"operator": {
    "hostname": !hostname,
    "name": !node_name,
    "company": !company_name,
    "local_ip": !ip,
    "ip": !external_ip,
    "port": !external_port.int,
    "rest_port": !anylog_rest_port.int,
    "cluster": !cluster_id,
    "main": !main.bool
}}>

policy = blockchain get operator where name=!node_name and company=!company_name

if not !policy then
do blockchain prepare policy !new_policy
do blockchain insert where policy=!new_policy and local=true and master=!ledger_conn

# ---- 9. partitions, and the task that drops old ones -----------------------------------------------------------------
partition !default_dbms !table_name using !partition_column by !partition_interval
schedule time=!partition_sync and name="Drop Partitions" task drop partition where dbms=!default_dbms and table =!table_name and keep=!partition_keep

# ---- 10. messages of a topic become rows -----------------------------------------------------------------------------
<run mqtt client where broker=local and port=!anylog_server_port and log=false and topic=(
   name=!mqtt_topic_name and
   dbms=!default_dbms and
   table=!mqtt_topic_table and
   column.timestamp.timestamp="bring [timestamp]" and
   column.device=(type=str and value="bring [device]") and
   column.temperature=(type=float and value="bring [temperature]") and
   column.pressure=(type=float and value="bring [pressure]") and
   column.vibration=(type=float and value="bring [vibration]")
)>

# ---- 11. operator, and what makes its cluster one --------------------------------------------------------------------
# Immediate: a row can be queried when its message is acknowledged.
set buffer threshold where write_immediate = true
set buffer threshold where dbms = !default_dbms and table = !mqtt_topic_table and write_immediate = true and ack = !ack

operator_id = blockchain get operator where name=!node_name and company=!company_name bring.first [operator][id]
run operator where create_table=true and update_tsd_info=true and archive=true and master=!ledger_conn and policy=!operator_id

# What this member produces goes to its mates; what it lacks it fetches from them.
run data distributor
run data consumer where start_date=!consumer_start
