//! What an administrator sees and does of a cluster.

mod data;
mod digest;
mod setup;
mod status;

use std::sync::Arc;

use anylog_core::command::Method;
use anylog_core::{Command, CommandError, Declaration, OptionKind, Status, command};
use anylog_ledger::OperatorNode;

use crate::OperatorService;
use crate::replica::repair::Member;

pub(super) fn commands(service: &Arc<OperatorService>) -> Vec<Arc<dyn Command>> {
    let mut all = exchange(service);
    all.extend(tests(service));
    all.extend(divergence(service));
    all
}

fn exchange(service: &Arc<OperatorService>) -> Vec<Arc<dyn Command>> {
    let state = || Arc::clone(service);
    vec![
        command(
            Declaration::new(
                "get consumer",
                "Shows how far this member is with the files of the other members of its cluster.",
            )
            .reads()
            .format_option()
            .returns(
                "its state and dates, the files and rows that were fetched, how many are missing, the rate and the time left; by \
                 producer what is here, missing, under way and parked, with the reasons; the last comparison with the other members",
            )
            .example("get consumer")
            .example("get consumer where format = json"),
            state(),
            |state, session, call| Box::pin(status::consumer(state, session, call)),
        ),
        command(
            Declaration::new("set consumer", "Changes what the consumer does.")
                .rest(
                    "setting",
                    true,
                    "mode = active or suspend: whether it fetches; repair = a time such as 15 minutes: how often members are compared",
                )
                .returns("nothing")
                .example("set consumer mode = suspend")
                .example("set consumer repair = 15 minutes"),
            state(),
            |state, session, call| Box::pin(status::set_consumer(state, session, call)),
        ),
        command(
            Declaration::new("get distributor", "Shows what this member gave to each other member of its cluster.")
                .reads()
                .format_option()
                .returns("a row per member: the files that were offered and sent, the rows of open files, bytes and rate")
                .example("get distributor"),
            state(),
            |state, session, call| Box::pin(status::distributor(state, session, call)),
        ),
        command(
            Declaration::new(
                "get tsd sync status",
                "Shows up to which file each member of the cluster has the files of each producer.",
            )
            .alias("get ha cluster status")
            .reads()
            .option("table", OptionKind::Text, "only this TSD table")
            .format_option()
            .returns(
                "a row per TSD table: the consensus - up to this number all members have all files - and the highest number at each \
                 member, with the count of its files; a member that is not linked has a question mark",
            )
            .example("get tsd sync status")
            .example("get ha cluster status where table = tsd_info"),
            state(),
            |state, session, call| Box::pin(status::sync(state, session, call)),
        ),
        command(
            Declaration::new("get peers status", "Shows the links to the other members of the cluster.")
                .reads()
                .format_option()
                .returns("a row per member: whether it is linked, since when, what was met last, and what went over the link")
                .example("get peers status"),
            state(),
            |state, session, call| Box::pin(status::peers(state, session, call)),
        ),
    ]
}

fn tests(service: &Arc<OperatorService>) -> Vec<Arc<dyn Command>> {
    let state = || Arc::clone(service);
    vec![
        command(
            Declaration::new("test cluster setup", "Shows whether this node is set up as a member of its cluster.")
                .alias("test cluster")
                .reads()
                .format_option()
                .returns("functionality and details: operator, distributor, consumer, name, member, cluster, registry")
                .example("test cluster setup"),
            state(),
            |state, session, call| Box::pin(setup::setup(state, session, call)),
        ),
        command(
            Declaration::new("test cluster databases", "Compares which databases the members of the cluster have.")
                .reads()
                .format_option()
                .returns("a row per database with a + for each member that has it, and the members that did not answer")
                .example("test cluster databases"),
            state(),
            |state, session, call| Box::pin(setup::databases(state, session, call)),
        ),
        command(
            Declaration::new("test cluster data", "Compares the data of the members of the cluster.")
                .reads()
                .option("start_date", OptionKind::Date, "only files registered since")
                .option("end_date", OptionKind::Date, "only files registered until")
                .option("detail", OptionKind::Choice(&["digest"]), "compares digests of all rows too, which reads them")
                .format_option()
                .returns(
                    "a row per table: complete files and rows at each member, and whether they are the same; with detail = digest also \
                     whether the rows themselves are; the members that did not answer within 3 seconds",
                )
                .example("test cluster data")
                .example("test cluster data where start_date = -3d and detail = digest"),
            state(),
            |state, session, call| Box::pin(data::data(state, session, call)),
        ),
    ]
}

fn divergence(service: &Arc<OperatorService>) -> Vec<Arc<dyn Command>> {
    let state = || Arc::clone(service);
    vec![
        command(
            Declaration::new("get cluster digest", "Shows digests of this member's rows, as members compare them.")
                .reads()
                .option("dbms", OptionKind::Text, "only this database")
                .option("table", OptionKind::Text, "only this table")
                .option("partition", OptionKind::Text, "only this partition; the table's name: rows that lie in none")
                .option("producer", OptionKind::Int, "only files that this member produced")
                .option("files", OptionKind::Text, "only these files: 7:1-20,25 9:1-4 are two producers")
                .option("upto", OptionKind::Text, "only files up to these numbers: 7:20 9:4 are two producers")
                .option("by", OptionKind::Choice(crate::replica::repair::ask::By::WORDS), "how far they are taken apart")
                .default_is("partition")
                .format_option()
                .returns(
                    "a row per table, partition and producer: complete files with rows, rows, and their digest, which is the same \
                     wherever the same rows are, in any order and engine; by holdings only what there is",
                )
                .example("get cluster digest where dbms = test and table = rand_data")
                .example("get cluster digest where table = rand_data and by = file and upto = \"7:20\" and format = json"),
            state(),
            |state, session, call| Box::pin(digest::digest(state, session, call)),
        ),
        command(
            Declaration::new(
                "repair cluster",
                "Compares this member's rows with those of the other members, and mends what differs.",
            )
            .adds_data()
            .method(Method::Post)
            .option("dbms", OptionKind::Text, "only this database")
            .option("table", OptionKind::Text, "only this table")
            .option("files", OptionKind::Text, "only this member's copies of these files, as another member asks: 7:12 9:3")
            .key_alias(&["file"])
            .format_option()
            .returns(
                "how much was compared with whom, and a row per file that differed: its rows at each member, who was right, and what \
                 was done. A wrong copy is fetched anew from a member that has it right, and its rows stay until then. Members with the \
                 registered number of rows are right before others; of these the value that most have, else the producer's",
            )
            .example("repair cluster")
            .example("repair cluster where dbms = test and table = rand_data"),
            state(),
            |state, session, call| Box::pin(digest::repair(state, session, call)),
        ),
    ]
}

/// The operator that this node is: the one that runs, else the one at its address.
fn own(service: &OperatorService) -> Result<OperatorNode, CommandError> {
    let ledger = service.ledger();
    let at_address = || ledger.view().operator_at(&ledger.node().address()).cloned();
    ledger.own_operator().or_else(at_address).ok_or_else(|| {
        CommandError::new(Status::NO_CLUSTER, "This node is no member of a cluster")
            .hint("insert its operator policy with a cluster, then: run operator where policy = <id>")
    })
}

/// This node as a running member.
fn member(service: &OperatorService) -> Result<Member, CommandError> {
    Ok(service.member()?)
}

/// What is shown above the columns of a member.
fn heading(member: i64, address: &str) -> String {
    format!("Node_{member}\n{address}")
}
