use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::driver::{LONGEST_SLEEP, next_run};
use super::*;
use crate::time::{Clock, ManualClock};
use crate::{Declaration, Invocation, Reply, Session, command};

struct Probe {
    runs: AtomicUsize,
    gate: tokio::sync::Semaphore,
}

async fn probe(probe: &Probe, _: &mut Session, _: Invocation) -> crate::CommandResult {
    probe.runs.fetch_add(1, Ordering::SeqCst);
    probe.gate.acquire().await.unwrap().forget();
    Ok(Reply::Empty)
}

fn node(permits: usize) -> (Arc<Node>, Arc<ManualClock>, Arc<Probe>) {
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let node = Node::builder().clock(clock.clone()).build();
    let state = Arc::new(Probe { runs: AtomicUsize::new(0), gate: tokio::sync::Semaphore::new(permits) });
    let declaration = Declaration::new("probe", "Counts.");
    node.registry
        .register(command(declaration, Arc::clone(&state), |s, session, call| Box::pin(probe(s, session, call))))
        .unwrap();
    (node, clock, state)
}

/// Waits for a condition. The time of the tests passes when every task waits, so none is given up too early.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for: {what}"));
}

/// Returns when every scheduler has looked at the clock.
async fn looked() {
    tokio::time::sleep(LONGEST_SLEEP * 2).await;
}

fn task(name: &str) -> Task {
    Task::new(name, Duration::from_secs(60), "probe", Access::Admin)
}

fn runs(node: &Node) -> u64 {
    node.schedulers.views()[0].tasks[0].runs
}

#[tokio::test(start_paused = true)]
async fn runs_at_once_and_then_at_every_interval() {
    let (node, clock, probe) = node(100);
    node.schedulers.add(&node, 1, task("a")).unwrap();
    assert_eq!(probe.runs.load(Ordering::SeqCst), 0, "a scheduler that does not run runs nothing");
    node.schedulers.run(&node, 1).unwrap();
    until("first run", || runs(&node) == 1).await;
    clock.advance(Duration::from_secs(59));
    looked().await;
    assert_eq!(runs(&node), 1, "before the interval is over");
    assert_eq!(node.schedulers.views()[0].tasks[0].next, "2026-01-01T00:01:00Z".parse().unwrap());
    clock.advance(Duration::from_secs(1));
    until("second run", || runs(&node) == 2).await;
    // Missed runs are not made up for.
    clock.advance(Duration::from_secs(600));
    until("third run", || runs(&node) == 3).await;
    assert_eq!(node.schedulers.views()[0].tasks[0].next, "2026-01-01T00:12:00Z".parse().unwrap());
    assert_eq!(node.schedulers.views()[0].tasks[0].outcome, Some(Ok(())));
    node.shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn waits_for_its_start() {
    let (node, clock, probe) = node(100);
    node.schedulers.run(&node, 1).unwrap();
    let start: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    node.schedulers.add(&node, 1, task("a").starting(Some(start))).unwrap();
    node.schedulers.add(&node, 1, task("b")).unwrap();
    until("the task without a start", || node.schedulers.views()[0].tasks[1].runs == 1).await;
    looked().await;
    assert_eq!(probe.runs.load(Ordering::SeqCst), 1);
    clock.set(start);
    until("the task with a start", || runs(&node) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_has_passed_sets_the_times_only() {
    let (node, _, probe) = node(100);
    node.schedulers.run(&node, 1).unwrap();
    let start: Timestamp = "2025-12-31T23:59:10Z".parse().unwrap();
    node.schedulers.add(&node, 1, task("a").starting(Some(start))).unwrap();
    node.schedulers.add(&node, 1, task("b")).unwrap();
    until("the other task", || node.schedulers.views()[0].tasks[1].runs == 1).await;
    assert_eq!(probe.runs.load(Ordering::SeqCst), 1);
    assert_eq!(node.schedulers.views()[0].tasks[0].next, "2026-01-01T00:00:10Z".parse().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_moved_back_does_not_stop_the_tasks() {
    let (node, clock, _) = node(100);
    node.schedulers.run(&node, 1).unwrap();
    node.schedulers.add(&node, 1, task("a")).unwrap();
    until("first run", || runs(&node) == 1).await;
    clock.set("2020-01-01T00:00:00Z".parse().unwrap());
    until("the interval to count anew", || {
        node.schedulers.views()[0].tasks[0].next == "2020-01-01T00:01:00Z".parse().unwrap()
    })
    .await;
    clock.advance(Duration::from_secs(60));
    until("second run", || runs(&node) == 2).await;
}

#[tokio::test(start_paused = true)]
async fn never_overlaps_itself() {
    let (node, clock, probe) = node(0);
    node.schedulers.run(&node, 1).unwrap();
    node.schedulers.add(&node, 1, task("a")).unwrap();
    until("the run to begin", || probe.runs.load(Ordering::SeqCst) == 1).await;
    clock.advance(Duration::from_secs(61));
    until("the due run to be left out", || {
        node.schedulers.views()[0].tasks[0].next == "2026-01-01T00:02:00Z".parse().unwrap()
    })
    .await;
    assert_eq!(probe.runs.load(Ordering::SeqCst), 1);
    probe.gate.add_permits(10);
    until("the run to end", || runs(&node) == 1).await;
    clock.advance(Duration::from_secs(60));
    until("the next run", || runs(&node) == 2).await;
}

#[tokio::test(start_paused = true)]
async fn tasks_are_stopped_resumed_run_and_removed() {
    let (node, clock, probe) = node(100);
    let which = Which::Name("a".to_owned());
    node.schedulers.add(&node, 1, task("a")).unwrap();
    assert_eq!(node.schedulers.change(&node, 1, &which, Change::Run), Err(ScheduleError::NotRunning { id: 1 }));
    node.schedulers.run(&node, 1).unwrap();
    until("first run", || runs(&node) == 1).await;
    node.schedulers.change(&node, 1, &Which::Id(1), Change::Stop).unwrap();
    clock.advance(Duration::from_secs(90));
    node.schedulers.change(&node, 1, &which, Change::Run).unwrap();
    until("a run by hand", || runs(&node) == 2).await;
    looked().await;
    assert_eq!(probe.runs.load(Ordering::SeqCst), 2, "a stopped task does not run by time");
    node.schedulers.change(&node, 1, &which, Change::Resume).unwrap();
    clock.advance(Duration::from_secs(30));
    until("a run by time", || runs(&node) == 3).await;
    node.schedulers.change(&node, 1, &which, Change::Init(None)).unwrap();
    assert_eq!(node.schedulers.views()[0].tasks[0].start, clock.now());
    node.schedulers.change(&node, 1, &which, Change::Remove).unwrap();
    assert!(node.schedulers.views()[0].tasks.is_empty());
    assert!(matches!(node.schedulers.change(&node, 1, &which, Change::Stop), Err(ScheduleError::NoTask { .. })));
    assert!(matches!(node.schedulers.change(&node, 9, &which, Change::Stop), Err(ScheduleError::NoTask { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_failing_task_says_so_and_goes_on() {
    let (node, _, _) = node(0);
    node.schedulers.add(&node, 1, Task::new("x", Duration::from_secs(1), "no such command", Access::Read)).unwrap();
    node.schedulers.run(&node, 1).unwrap();
    until("the run", || runs(&node) == 1).await;
    assert!(matches!(node.schedulers.views()[0].tasks[0].outcome, Some(Err(_))));
}

#[tokio::test(start_paused = true)]
async fn a_task_has_the_rights_of_who_scheduled_it() {
    let (node, _, probe) = node(100);
    node.schedulers.add(&node, 1, Task::new("x", Duration::from_secs(1), "probe", Access::Read)).unwrap();
    node.schedulers.run(&node, 1).unwrap();
    until("the run", || runs(&node) == 1).await;
    let outcome = node.schedulers.views()[0].tasks[0].outcome.clone();
    assert_eq!(outcome.unwrap().unwrap_err().status, Status::UNAUTHORIZED);
    assert_eq!(probe.runs.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn names_and_schedulers_are_unique() {
    let (node, _, _) = node(100);
    node.schedulers.add(&node, 1, task("a")).unwrap();
    let error = CommandError::from(node.schedulers.add(&node, 1, task("a")).unwrap_err());
    assert_eq!(error.status, Status::COMMAND_STRUCTURE);
    node.schedulers.add(&node, 2, task("a")).unwrap();
    node.schedulers.add(&node, 1, task("")).unwrap();
    node.schedulers.add(&node, 1, task("")).unwrap();
    node.schedulers.run(&node, 1).unwrap();
    let error = CommandError::from(node.schedulers.run(&node, 1).unwrap_err());
    assert_eq!(error.status, Status::PROCESS_RUNNING);
    node.schedulers.stop(1).unwrap();
    assert_eq!(node.schedulers.stop(1), Err(ScheduleError::NotRunning { id: 1 }));
    node.schedulers.run(&node, 1).unwrap();
    assert_eq!(
        node.schedulers.add(&node, 1, Task::new("z", Duration::ZERO, "probe", Access::Read)),
        Err(ScheduleError::NoInterval)
    );
    node.shutdown.cancel();
    assert!(!node.schedulers.views()[0].running);
}

proptest! {
    #[test]
    fn the_next_run_is_the_first_multiple_ahead(start in 0_i64..2_000_000_000, every in 1_u64..10_000_000, now in 0_i64..2_000_000_000) {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let next = next_run(at(start), Duration::from_secs(every), at(now)).as_second();
        let every = i64::try_from(every).unwrap();
        prop_assert!(next >= start && next > now.min(next - 1));
        prop_assert_eq!((next - start) % every, 0);
        if start <= now {
            prop_assert!(next > now && next - now <= every);
        }
    }
}
