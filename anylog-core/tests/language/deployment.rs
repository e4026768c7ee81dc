//! A deployment in the style of those that are in use: a main script with labels, error handlers, nested scripts and policies that
//! grow member by member, on the commands of the crate itself.

use crate::support::Bench;

const MAIN: &str = r#"
#--------------------------------------------------
# entry: sets the node up, then prints a summary
#--------------------------------------------------
:set-configs:
on error ignore
set debug off
set authentication off
set exception traceback off

:paths:
if $EDGE_TEST_SCRIPTS then set deploy_dir = $EDGE_TEST_SCRIPTS
else goto missing-path
if $EDGE_TEST_MISSING then set deploy_dir = $EDGE_TEST_MISSING
else if $EDGE_TEST_ALSO_MISSING then set deploy_dir = $EDGE_TEST_ALSO_MISSING

:version:
version = get version
product = python !version.split(" ")[0]
if !product == AnyLog then set is_anylog = true
else is_anylog = false

:parameters:
on error goto params-error
process !deploy_dir/params.al
on error ignore
if !node_type == operator and (!operator_count.int > 1 or !is_anylog == true) then goto operator
if not !node_type then goto params-error

:other:
print "not an operator"
goto end

:operator:
on error call policy-error
process !deploy_dir/policy.al !node_name.name "Operator node"
on error ignore
counter = 0
:again:
counter = incr !counter
if !counter.int < 3 then goto again
print "operator " !node_name " after " !counter " rounds"
goto end

:policy-error:
print "policy failed"
return

:params-error:
print "no parameters"
end script

:missing-path:
print "no path"

:end:
end script
"#;

const PARAMETERS: &str = r#"
# defaults, then the environment
node_name = Edge Operator
node_type = operator
operator_count = 2
broker = !host + ":" + 32150
loc = 0.0, 0.0
if $EDGE_TEST_LOCATION then loc = $EDGE_TEST_LOCATION
if !loc contains "," and not (!loc startswith "0.0") then loc_known = true
<if !operator_count.int >= 2
   and !node_type == OPERATOR   # compared without case
   then cluster_name = shared-cluster>
else cluster_name = own-cluster
"#;

const POLICY: &str = r#"
variables (policy_name, policy_comment)
on error ignore
<new_policy = {"operator": {
   "name": !policy_name,     # from the caller
   "comment": !policy_comment,
   "cluster": !cluster_name,
   "port": !operator_count.int
}}>
set policy new_policy [operator][loc] = !loc
set policy new_policy [operator][ip] = '!external_ip'
set policy new_policy [operator][script] = ["if !a then process !b", 'run scheduler 1']
set policy new_policy [operator][tags] = {}
set policy new_policy [operator][tags][floor] = !operator_count.int and [operator][tags][hall] = "B 2"
is_json = json !new_policy test
if !is_json == false then
do print "bad policy"
do end script
name_again = from !new_policy bring [operator][name]
short = !name_again[0:4]
"#;

#[tokio::test]
async fn a_deployment_runs_to_its_end() {
    let mut bench = Bench::new();
    let directory = bench.home.path().display().to_string();
    bench.node.dictionary.set_environment("EDGE_TEST_SCRIPTS", &directory);
    bench.node.dictionary.set_environment("EDGE_TEST_LOCATION", "37.4, -122.1");
    bench.node.dictionary.set("host", "10.0.0.7");
    bench.script("params.al", PARAMETERS);
    bench.script("policy.al", POLICY);
    let (result, printed) = bench.process(MAIN).await;
    result.unwrap_or_else(|error| panic!("{error}\n{:?}", bench.node.errors.messages()));
    let failures: Vec<String> = bench.node.errors.messages().into_iter().map(|message| message.text).collect();
    assert_eq!(failures, [""; 0]);
    assert_eq!(printed, ["operator  Edge Operator  after  3  rounds"]);
    for (name, value) in [
        ("broker", Some("10.0.0.7:32150")),
        ("loc_known", Some("true")),
        ("cluster_name", Some("shared-cluster")),
        ("name_again", Some("edge_operator")),
        ("short", Some("edge")),
        ("is_json", Some("true")),
        (
            "new_policy",
            Some(
                r#"{"operator": {"name": "edge_operator", "comment": "Operator node", "cluster": "shared-cluster", "port": 2, "loc": "37.4, -122.1", "ip": "!external_ip", "script": ["if !a then process !b", "run scheduler 1"], "tags": {"floor": 2, "hall": "B 2"}}}"#,
            ),
        ),
    ] {
        assert_eq!(bench.get(name).as_deref(), value, "{name}");
    }
}

#[tokio::test]
async fn a_deployment_without_its_files_says_so() {
    let mut bench = Bench::new();
    let (result, printed) = bench.process(MAIN).await;
    result.unwrap();
    assert_eq!(printed, ["no path"]);

    // a missing script is no case for 'goto': the deployment ends with the error
    bench.node.dictionary.set_environment("EDGE_TEST_SCRIPTS", "/no/such/directory");
    let (result, _) = bench.process(MAIN).await;
    let error = result.unwrap_err();
    assert!(error.message.contains("/no/such/directory/params.al"), "{error}");

    let directory = bench.home.path().display().to_string();
    bench.node.dictionary.set_environment("EDGE_TEST_SCRIPTS", &directory);
    bench.script("params.al", "node_type = operator\noperator_count = 3\nnode_name = x");
    bench.script("policy.al", "variables (a, b)\non error end script\nfail 40");
    let (result, printed) = bench.process(MAIN).await;
    result.unwrap();
    assert!(printed.contains(&"policy failed".to_owned()), "{printed:?}");
    assert_eq!(printed.last().map(String::as_str), Some("operator  x  after  3  rounds"));
}
