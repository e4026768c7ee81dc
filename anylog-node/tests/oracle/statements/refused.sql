# What the dialect leaves out says what to write instead.
select device from readings join archive on readings.big = archive.big
! JOIN
! one table at a time
select a.device from readings a, archive b
! a join of several tables
select device from readings inner join archive using (big)
! JOIN
select device from readings union select device from archive
! UNION
! include = (table, ..)
select device from (select device from readings)
! a sub-select in FROM
! name a table after FROM
select device from readings where big in (select big from archive)
! a sub-select
! {select
select device from readings where exists (select 1 from archive)
! a sub-select
with x as (select 1) select * from readings
! select
select device from readings where big = (select max(big) from archive)
! a sub-select
select vlaue from readings
! Column 'vlaue' is not recognized in table: plant.readings
! did you mean 'value'
select avg(vlaue) from readings
! 'vlaue'
! did you mean 'value'
select value from readings order by nothing
! 'nothing'
select value from readings group by nothing
! 'nothing'
select value from raedings
! did you mean 'readings'
select value, value from readings
! Duplicate projected column names
select device, value as device from readings
! Duplicate projected column names
select value from readings wehre value > 1
! did you mean 'where'
select value from readings where value > = 1
! SQL
select value from readings limit ten
! limit takes digits only
select value from readings limit -5
! limit takes digits only
select value from readings where
! SQL
select from readings
! SQL
select value from
! table
select nosuch(value) from readings
! function 'nosuch' is not known
select load_extension('x') from readings
! is not known
select randomblob(1000000000) from readings
! is not known
select value from plant.readings
! name only the table
select value::flot(2) from readings
! Unknown cast
! did you mean 'float'
select device::float(2) from readings where device = 'pump-1'
! Failed to cast 'pump-1'
select increments(fortnight, 1, timestamp), count(*) from readings
! increments
! fortnight
select increments(timestamp), count(*) from readings
! Missing or wrong where condition in an increment query
select increments(day, 1, value), count(*) from readings
! holds no time
select increments(day, 1, timestamp), value from readings where period(day, 1, now(), timestamp)
! increments together with period
select value from readings where period(eon, 1, now(), timestamp)
! Inconsistent arguments for function: 'period'
select value from readings where period(day, now(), timestamp)
! Inconsistent arguments for function: 'period'
select value from readings where timestamp > 'yesterday'
! 'yesterday' is not a date
select value from readings where sum(value) > 5
! having
select sum(value), avg(value from readings
! SQL
select value from readings where device = 'unclosed
! not closed
select value from readings; drop table readings
! several statements
select device, value from readings limit 3 per nosuch
! nosuch
select range(device) from readings
! range
select row_number() from readings
! window
delete from readings
! Only SELECT
& format = xml
select value from readings
! json:list
& nodes = some
select value from readings
! main or all
& include = (nosuch)
select value from readings
! nosuch
& include = (sparse)
select * from readings
! name the columns
& extend = (table_name)
select value from readings
! prefix
& timezone = mars
select value from readings
! mars
