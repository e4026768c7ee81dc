# A master: the node that holds the ledger. The other nodes send it their policies and follow what it knows.
#
#     anylog-node --home /tmp/net/master process examples/network/master.al
#
# Whatever differs on your site is set by an environment variable of the same name in capitals; step 1 lists them all.
on error end script

# ---- 1. parameters ---------------------------------------------------------------------------------------------------
hostname = get hostname
set node_name = master
set company_name = "New Company"

set ip = 127.0.0.1
set external_ip = 127.0.0.1
set anylog_server_port = 32048
set anylog_rest_port = 32049
sync_time = 30 seconds

set db_type = sqlite
set db_ip = 127.0.0.1
set db_port = 5432
set db_user = anylog
set db_password = demo

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
if $DB_PASSWORD then db_password = $DB_PASSWORD
if $SYNC_TIME then sync_time = $SYNC_TIME

create work directories

# ---- 2. the ledger, in a database of its own -------------------------------------------------------------------------
connect dbms blockchain where type=!db_type and ip=!db_ip and port=!db_port and user=!db_user and password=!db_password
create table ledger where dbms=blockchain

# ---- 3. TCP and REST -------------------------------------------------------------------------------------------------
run tcp server !external_ip !anylog_server_port !ip !anylog_server_port
run rest server !ip !anylog_rest_port

# ---- 4. scheduler, and the copy of the ledger in a file --------------------------------------------------------------
run scheduler 1
run blockchain sync where source=dbms and time=!sync_time and dest=file

# ---- 5. master policy, declared once ---------------------------------------------------------------------------------
<new_policy={"master": {
    "hostname": !hostname,
    "name": !node_name,
    "company": !company_name,
    "ip": !external_ip,
    "local_ip": !ip,
    "port": !anylog_server_port.int,
    "rest_port": !anylog_rest_port.int
}}>

ledger_conn = !external_ip + : + !anylog_server_port
policy = blockchain get master where ip = !external_ip and company=!company_name and port=!anylog_server_port bring.first

if not !policy then
do blockchain prepare policy !new_policy
do blockchain insert where policy=!new_policy and local=true and master=!ledger_conn
