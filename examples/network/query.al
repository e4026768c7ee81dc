# A query node: keeps no data, follows the ledger, and puts the answers of the operators together.
#
#     anylog-node --home /tmp/net/query process examples/network/query.al
#
# Whatever differs on your site is set by an environment variable of the same name in capitals; step 1 lists them all.
on error end script

# ---- 1. parameters ---------------------------------------------------------------------------------------------------
hostname = get hostname
set node_name = query
set company_name = "New Company"
set ledger_conn = 127.0.0.1:32048

set ip = 127.0.0.1
set external_ip = 127.0.0.1
set anylog_server_port = 32348
set anylog_rest_port = 32349
sync_time = 30 seconds

set db_type = sqlite
set db_ip = 127.0.0.1
set db_port = 5432
set db_user = anylog
set db_password = demo

if $NODE_NAME then node_name = $NODE_NAME
if $COMPANY_NAME then company_name = $COMPANY_NAME
if $LEDGER_CONN then ledger_conn = $LEDGER_CONN
if $IP then set ip = $IP
if $EXTERNAL_IP then set external_ip = $EXTERNAL_IP
if $ANYLOG_SERVER_PORT then anylog_server_port = $ANYLOG_SERVER_PORT
if $ANYLOG_REST_PORT then anylog_rest_port = $ANYLOG_REST_PORT
if $DB_TYPE then db_type = $DB_TYPE
if $DB_IP then db_ip = $DB_IP
if $DB_PORT then db_port = $DB_PORT
if $DB_USER then db_user = $DB_USER
if $DB_PASSWORD then db_password = $DB_PASSWORD
if $SYNC_TIME then sync_time = $SYNC_TIME

create work directories

# ---- 2. TCP and REST -------------------------------------------------------------------------------------------------
run tcp server !external_ip !anylog_server_port !ip !anylog_server_port
run rest server !ip !anylog_rest_port

# ---- 3. system_query, in memory with SQLite: takes the answers that are asked for as tables --------------------------
connect dbms system_query where type=!db_type and memory=true and ip=!db_ip and port=!db_port and user=!db_user and password=!db_password

# ---- 4. scheduler and synchronisation of the ledger ------------------------------------------------------------------
run scheduler 1
run blockchain sync where source=master and time=!sync_time and dest=file and connection=!ledger_conn

# ---- 5. query policy, declared once ----------------------------------------------------------------------------------
<new_policy={"query": {
    "hostname": !hostname,
    "name": !node_name,
    "company": !company_name,
    "ip": !external_ip,
    "local_ip": !ip,
    "port": !anylog_server_port.int,
    "rest_port": !anylog_rest_port.int
}}>

policy = blockchain get query where ip = !external_ip and company=!company_name and port=!anylog_server_port bring.first

if not !policy then
do blockchain prepare policy !new_policy
do blockchain insert where policy=!new_policy and local=true and master=!ledger_conn
