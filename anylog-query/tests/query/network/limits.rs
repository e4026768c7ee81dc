//! What `set query mode` and `dest` do to queries over nodes.

use anylog_query::QueryMode;

use super::*;

#[test]
fn a_query_mode_limits_what_operators_do() {
    let (net, _) = three_clusters();
    let set = |operator: usize, line: &str| {
        let node = Arc::clone(&net.operators[operator].1.node);
        runtime().block_on(Session::new(node, Caller::embedded()).execute(line)).unwrap();
    };
    let rows = "run client () sql d format = table \"select * from t\"";
    set(0, "set query mode using max_volume = 1KB");
    let error = net.run(rows).unwrap_err();
    assert!(error.contains("76 From operator at 10.0.0.2:2001") && error.contains("1024 bytes"), "{error}");
    assert!(error.contains("set query mode using max_volume"), "{error}"); // R25
    // What is left out stays; few rows pass.
    set(0, "set query mode using timeout = 1 minute");
    assert!(net.run(rows).is_err());
    assert!(net.run(COUNT).unwrap().contains(r#""n":60"#));
    set(0, "set query mode using max_volume = 0");
    assert!(net.run(rows).is_ok());
    // The same for the node's own queries.
    net.run("set query mode using timeout = 30 seconds and max_volume = 2MB and send_mode = any and show_id = true")
        .unwrap();
    let shown = net.run("get query params where format = json").unwrap();
    for part in [r#""Value": "30""#, r#""Value": "2097152""#, r#""Value": "any""#, r#""Value": "all""#] {
        assert!(shown.contains(part), "{shown}");
    }
    for (wrong, told) in [
        ("set query mode using timeout = soon", "182 Wrong time: 'soon'"),
        ("set query mode using send_mode = some", "2 send_mode = some"),
        ("set query mode using max_volum = 3", "did you mean 'max_volume'"),
        ("set query mode", "sets nothing"),
        ("set query pool 0", "1 to 256"),
        ("set query pool many", "'many'"),
    ] {
        let error = net.run(wrong).unwrap_err();
        assert!(error.contains(told), "{wrong}: {error}");
    }
}

#[test]
fn a_query_that_takes_too_long_for_a_node_ends() {
    let (net, _) = three_clusters();
    let timeout = Some(Duration::from_nanos(1));
    let hurry = QueryMode { timeout, ..QueryMode::default() };
    let operator = &net.operators[0].1.service;
    operator.set_mode(hurry);
    let error = net.run(COUNT).unwrap_err();
    assert!(error.starts_with("77 From operator at 10.0.0.2:2001: the query took longer than"), "{error}");
    let own = runtime().block_on(operator.select(Request::new("d", "select count(*) from t")));
    assert_eq!(own.err(), Some(QueryError::TimeLimit { after: Duration::from_nanos(1) }));
    operator.set_mode(QueryMode::default());
    assert!(net.run(COUNT).is_ok());
    // A query over the network has max_time for this.
    net.service.set_mode(hurry);
    assert!(net.run(COUNT).is_ok());
}

#[test]
fn an_answer_may_lack_what_the_query_mode_allows() {
    // QRY-2
    let (net, _) = three_clusters();
    net.cut("10.0.0.2:2001");
    net.run("set query mode using reply_mode = any").unwrap();
    assert!(net.run(COUNT).unwrap_err().starts_with("208 "), "only nodes that were reached may be missing");
    net.run("set query mode using send_mode = any and reply_mode = all").unwrap();
    let answer = net.run(COUNT).unwrap();
    assert!(answer.contains(r#""n":40"#) && answer.contains("Missing Nodes"), "{answer}");
    net.peers.set_reachable("10.0.0.2:2001", true);
    net.operators[0].1.mute.store(true, Ordering::Relaxed);
    let late = COUNT.replace("()", "(timeout = 1)");
    assert!(net.run(&late).unwrap_err().starts_with("26 "));
    net.run("set query mode using send_mode = all and reply_mode = any").unwrap();
    let answer = net.run(&late).unwrap();
    assert!(answer.contains(r#""n":40"#) && answer.contains("did not answer"), "{answer}");
}

#[test]
fn a_query_may_take_for_ever() {
    let (net, _) = three_clusters();
    let network = Network { max_time: Some(Duration::MAX), timeout: Some(Duration::MAX), ..Network::default() };
    let request = Request { network: Some(network), ..Request::new("d", "select count(*) from t") };
    let asked = runtime().block_on(async {
        let mut answer = net.service.select(request).await?;
        answer.next().await.transpose()
    });
    assert!(asked.unwrap().is_some());
}

#[test]
fn the_answer_of_nobody_is_an_error() {
    // QRY-2
    let (net, _) = three_clusters();
    for (address, _) in &net.operators {
        net.cut(address);
    }
    for sql in ["select count(*) from t", "select count from t", "select count from t order by count"] {
        let error = net.run(&format!("run client (subset = true) sql d \"{sql}\"")).unwrap_err();
        assert!(error.starts_with("208 No node answered: ") && error.contains("10.0.0.2:2001"), "{sql}: {error}");
        assert!(error.contains("10.0.0.2:2022"), "{sql}: {error}");
    }
}

#[test]
fn a_part_that_is_given_up_is_shown_as_stopped() {
    let (net, _) = three_clusters();
    net.operators[0].1.mute.store(true, Ordering::Relaxed);
    net.cut("10.0.0.2:2021");
    net.cut("10.0.0.2:2022");
    net.run(COUNT).unwrap_err();
    let shows = |word: &str| net.run("query status").unwrap().contains(word);
    // The part of the silent node ends with the query.
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while shows("Processing") && std::time::Instant::now() < end {
        std::thread::yield_now();
    }
    assert!(shows("Stopped") && !shows("Processing"), "{}", net.run("query status").unwrap());
    assert_eq!(net.run("job status").unwrap(), net.run("query status").unwrap());
    assert_eq!(net.run("job active").unwrap(), "No query is at work");
}

#[test]
fn rows_go_where_dest_says() {
    let (net, _) = three_clusters();
    let to = |options: &str| net.run(&format!("run client () sql d {options} \"select device, count from t\""));
    for (options, told) in [
        ("dest = kafka@10.0.0.1:9092 and topic = x", "dest = <dbms>.<table>"),
        ("topic = x", "topic = x: rows are not sent to brokers"),
        ("dest = buffer", "dest = buffer: rows cannot go there"),
        ("dest = dbms", "needs the name of a table"),
        ("dest = file", "needs the name of a file"),
        ("dest = rest and file = x", "contradict"),
        ("dest = file and table = x", "contradict"),
        ("dest = nothing.results", "nothing"),
        ("dest = a.b.c", "rows cannot go there"),
        ("table = x", "Local query database not available"),
    ] {
        let error = to(options).unwrap_err();
        assert!(error.contains(told), "{options}: {error}");
    }
    let home = tempfile::tempdir().unwrap();
    let (here, catalog) = (Arc::clone(&net.node), net.service.catalog());
    let results = catalog.connect(ConnectRequest::sqlite("own", home.path())).unwrap();
    assert!(to("dest = own.results").unwrap().contains("Data in table 'results'"));
    assert!(to("dest = own.results and drop = false").unwrap().contains("Data in table 'results'"));
    let rows = runtime().block_on(async {
        let reply = Session::new(here, Caller::embedded())
            .execute("sql own format=json:list and stat=false \"select count(*) as n from results\"")
            .await;
        reply.unwrap().into_text().await.unwrap()
    });
    assert!(rows.contains(r#""n":120"#), "{rows}");
    drop(results);
    catalog.disconnect("own").unwrap();
}
