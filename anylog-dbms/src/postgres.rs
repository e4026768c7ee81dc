//! PostgreSQL.

use std::ops::ControlFlow;

use crate::{ColumnType, ConnectRequest, Dbms, DbmsError, DbmsInfo, Engine, SegmentId, SqlValue, TableSchema, Target};

/// A PostgreSQL database.
#[derive(Debug)]
pub struct PostgresDbms {}

impl PostgresDbms {
    pub(crate) fn connect(request: &ConnectRequest) -> Result<Self, DbmsError> {
        Err(DbmsError::Connect { name: request.name.clone(), reason: "not available".into() })
    }

    pub(crate) fn change(&self, _: &str, _: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, DbmsError> {
        Err(absent())
    }

    pub(crate) fn rows(&self, _: &str, _: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, DbmsError> {
        Err(absent())
    }

    pub(crate) fn delete(request: &ConnectRequest) -> Result<(), DbmsError> {
        Err(DbmsError::Connect { name: request.name.clone(), reason: "not available".into() })
    }
}

impl Dbms for PostgresDbms {
    fn engine(&self) -> Engine {
        Engine::Postgres
    }
    fn info(&self) -> DbmsInfo {
        DbmsInfo { ip_port: String::new(), configuration: String::new(), storage: String::new() }
    }
    fn tables(&self) -> Result<Vec<String>, DbmsError> {
        Err(absent())
    }
    fn schema(&self, _: &str) -> Result<Option<TableSchema>, DbmsError> {
        Err(absent())
    }
    fn create_table(&self, _: &TableSchema) -> Result<(), DbmsError> {
        Err(absent())
    }
    fn widen_column(&self, _: &str, _: &str, _: ColumnType) -> Result<(), DbmsError> {
        Err(absent())
    }
    fn drop_table(&self, _: &str) -> Result<(), DbmsError> {
        Err(absent())
    }
    fn partitions(&self, _: &str) -> Result<Vec<String>, DbmsError> {
        Err(absent())
    }
    fn create_partition(&self, _: &TableSchema, _: &str) -> Result<(), DbmsError> {
        Err(absent())
    }
    fn drop_partition(&self, _: &str, _: &str) -> Result<(), DbmsError> {
        Err(absent())
    }
    fn apply(&self, _: &Target, _: &[String], _: &[Vec<SqlValue>], _: &[(SegmentId, u64)]) -> Result<(), DbmsError> {
        Err(absent())
    }
    fn applied(&self, _: &Target, _: SegmentId) -> Result<Option<u64>, DbmsError> {
        Err(absent())
    }
    fn forget(&self, _: &[SegmentId]) -> Result<(), DbmsError> {
        Err(absent())
    }
    fn sync(&self) -> Result<(), DbmsError> {
        Err(absent())
    }
    fn query(
        &self,
        _: Option<&Target>,
        _: &str,
        _: &mut dyn FnMut(&[String], Vec<SqlValue>) -> ControlFlow<()>,
    ) -> Result<(), DbmsError> {
        Err(absent())
    }
    fn execute(&self, _: &str) -> Result<u64, DbmsError> {
        Err(absent())
    }
    fn count(&self, _: &Target) -> Result<u64, DbmsError> {
        Err(absent())
    }
}

fn absent() -> DbmsError {
    DbmsError::Connect { name: String::new(), reason: "not available".into() }
}
