//! The command language: lexer, expansion and whole commands.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use anylog_core::language::lexer::lex;
use anylog_core::{Caller, Node, Session};
use criterion::{Criterion, criterion_group, criterion_main};

const MESSAGE_CLIENT: &str = "run mqtt client where broker=local and port=!port and log=false and topic=(name=demo and dbms=test and \
    table=rand_data and column.timestamp.timestamp=!stamp and column.value=(value=!value and type=float))";

fn language(c: &mut Criterion) {
    c.bench_function("lex a topic mapping", |b| b.iter(|| lex(black_box(MESSAGE_CLIENT))));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut session = Session::new(Node::builder().build(), Caller::embedded());
    c.bench_function("execute an assignment", |b| {
        b.iter(|| runtime.block_on(session.execute(black_box("name = prefix + _ + !hostname"))));
    });
    c.bench_function("execute an if", |b| {
        b.iter(|| runtime.block_on(session.execute(black_box("if !name == other then set a = b"))));
    });
}

criterion_group!(benches, language);
criterion_main!(benches);
