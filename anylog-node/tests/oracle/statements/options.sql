# timezone, include, extend, nodes, limit per, dictionary.
& timezone = utc
select timestamp, big from readings where level = 1 order by big
& timezone = et
select timestamp, event, big from readings where level = 1 order by big
= select in_zone(timestamp, 'America/New_York') as timestamp, in_zone(event, 'America/New_York') as event, big from readings where level = 1 order by big
& timezone = pt
select min(timestamp) as a, max(timestamp) as b, count(*) as n from readings
= select in_zone(min(timestamp), 'America/Los_Angeles') as a, in_zone(max(timestamp), 'America/Los_Angeles') as b, count(*) as n from readings
& timezone = mt
select timestamp, big from readings where timestamp >= '2024-11-03' and timestamp < '2024-11-04' order by big
= select in_zone(timestamp, 'America/Denver') as timestamp, big from readings where timestamp >= '2024-11-03' and timestamp < '2024-11-04' order by big
& timezone = ct
select device, max(timestamp) as t from readings group by device order by device
= select device, in_zone(max(timestamp), 'America/Chicago') as t from readings group by device order by device
& timezone = Europe/Berlin
select timestamp, big from readings where timestamp >= '2025-03-30' and timestamp < '2025-03-31' order by big
= select in_zone(timestamp, 'Europe/Berlin') as timestamp, big from readings where timestamp >= '2025-03-30' and timestamp < '2025-03-31' order by big
& timezone = Asia/Kolkata
select increments(month, 1, timestamp), min(timestamp) as t, count(*) as n from readings
= select in_zone(min(timestamp), 'Asia/Kolkata') as t, count(*) as n from readings group by @inc(month,1,timestamp) order by @inc(month,1,timestamp)
& timezone = local
select timestamp, big from readings where level = 2 order by big
& timezone = et
select timestamp::datetime(%Y-%m-%d %H:%M:%S) as t, timestamp, big from readings where level = 1 order by big
= select substr(timestamp, 1, 19) as t, in_zone(timestamp, 'America/New_York') as timestamp, big from readings where level = 1 order by big
& timezone = et
select device, value from readings where timestamp = '2023-12-31 23:59:59.999999' order by device, value
& nodes = main
select count(*) as n, sum(value) as s from readings
& nodes = all
select count(*) as n, sum(value) as s from readings
& nodes = all
select big from readings order by big
& nodes = all
select device, count(distinct big) as n from readings group by device order by device
& pass_through = false
select device, big from readings where level = 1
& pass_through = true
select device, big from readings where level = 1
& max_time = 120 seconds
select count(*) as n from readings
# include: rows of other tables as if they were of the first.
& include = (archive)
select count(*) as n from readings
= select (select count(*) from readings) + (select count(*) from archive) as n
& include = (archive)
select * from readings
= select * from readings union all select * from archive
& include = (archive)
select device, count(*) as n, avg(value) as a, min(timestamp) as t from readings group by device order by device
= select device, count(*) as n, avg(value) as a, min(timestamp) as t from (select * from readings union all select * from archive) group by device order by device
& include = archive
select timestamp, big from readings where level = 2 order by timestamp, big
= select timestamp, big from (select * from readings union all select * from archive) where level = 2 order by timestamp, big
& include = (archive)
select count(distinct device) as d, count(distinct big) as b from readings
= select count(distinct device) as d, count(distinct big) as b from (select * from readings union all select * from archive)
& include = (archive)
select increments(month, 1, timestamp), count(*) as n, sum(value) as s from readings
= select count(*) as n, sum(value) as s from (select * from readings union all select * from archive) group by @inc(month,1,timestamp) order by @inc(month,1,timestamp)
& include = (archive)
select count(*) as n from readings where period(day, 10, '2024-07-01', timestamp)
= select count(*) as n from (select * from readings union all select * from archive) where timestamp <= (select max(timestamp) from (select * from readings union all select * from archive) where timestamp <= '2024-07-01 00:00:00.000000') and timestamp > (select strftime('%Y-%m-%d %H:%M:', e, '-10 days') || substr(e, 18) from (select max(timestamp) as e from (select * from readings union all select * from archive) where timestamp <= '2024-07-01 00:00:00.000000'))
& include = (archive)
select big from readings order by big desc limit 20
= select big from (select * from readings union all select * from archive) order by big desc limit 20
& include = (readings)
select count(*) as n, max(value) as m from archive
= select count(*) as n, max(value) as m from (select * from readings union all select * from archive)
& include = (sparse)
select timestamp, device, value from readings where value > 500
= select timestamp, device, value from readings where value > 500 union all select timestamp, device, value from sparse where value > 500
& include = (sparse)
select device, value, level, site, ok from readings where value > 500
= select device, value, level, site, ok from readings where value > 500 union all select device, value, null, null, null from sparse where value > 500
& include = (sparse)
select count(*) as n, count(level) as l, sum(value) as s, max(site) as m from readings
= select count(*) as n, count(level) as l, sum(value) as s, max(site) as m from (select value, level, site from readings union all select value, null, null from sparse)
& include = (sparse)
select site, count(*) as n, avg(value) as a from readings group by site order by site
= select site, count(*) as n, avg(value) as a from (select value, site from readings union all select value, null from sparse) group by site order by site
& include = (sparse)
select count(*) as n from readings where level is null
= select count(*) as n from (select level from readings union all select null from sparse) where level is null
& include = (plant.archive, sparse)
select count(*) as n, max(timestamp) as t, sum(value) as s from readings
= select count(*) as n, max(timestamp) as t, sum(value) as s from (select timestamp, value from readings union all select timestamp, value from archive union all select timestamp, value from sparse)
& include = (archive, plant.sparse)
select device, value from readings order by value desc, device limit 30
= select device, value from (select device, value from readings union all select device, value from archive union all select device, value from sparse) order by value desc, device limit 30
& include = (readings, archive)
select device, count(*) as n from sparse group by device order by device
= select device, count(*) as n from (select device from readings union all select device from archive union all select device from sparse) group by device order by device
# extend: columns that each node fills, in front.
& extend = (@table_name)
select count(*) as n from readings
= select 'readings' as table_name, count(*) as n from readings
& extend = (@table_name as tbl, @dbms_name as db)
select site, count(*) as n from readings group by site order by site
= select 'readings' as tbl, 'plant' as db, site, count(*) as n from readings group by site order by site
& extend = (@table_name as table) and include = (archive)
select table_name, timestamp, value, big from readings where level = 1
= select 'readings' as "table", timestamp, value, big from readings where level = 1 union all select 'archive', timestamp, value, big from archive where level = 1
& extend = (@table_name) and include = (archive)
select count(*) as n, avg(value) as a from readings
= select 'readings' as table_name, count(*) as n, avg(value) as a from readings union all select 'archive', count(*), avg(value) from archive
& extend = (@table_name as tbl) and include = (archive, sparse)
select tbl, device, count(*) as n from readings group by device
= select 'readings' as tbl, device, count(*) as n from readings group by device union all select 'archive', device, count(*) from archive group by device union all select 'sparse', device, count(*) from sparse group by device
& extend = (@table_name as tbl) and include = (archive)
select device, value, big from readings where value > 0 order by big limit 40
= select tbl, device, value, big from (select 'readings' as tbl, device, value, big from readings union all select 'archive', device, value, big from archive) where value > 0 order by big limit 40
& extend = (@table_name as tbl) and include = (archive)
select tbl, value, big from readings where value > 0 order by value desc, big limit 3 per tbl
= select tbl, value, big from (select tbl, value, big, row_number() over (partition by tbl order by value desc, big) as n from (select 'readings' as tbl, value, big from readings union all select 'archive', value, big from archive) where value > 0) where n <= 3 order by value desc, big
# limit n per column.
select device, value, big from readings where value is not null order by value desc, big limit 2 per device
= select device, value, big from (select device, value, big, row_number() over (partition by device order by value desc, big) as n from readings where value is not null) where n <= 2 order by value desc, big
select site, timestamp, big from readings order by timestamp desc, big limit 5 per site
= select site, timestamp, big from (select site, timestamp, big, row_number() over (partition by site order by timestamp desc, big) as n from readings) where n <= 5 order by timestamp desc, big
select level, device, count(*) as n from readings group by level, device order by n desc, level, device limit 1 per level
= select level, device, n from (select level, device, n, row_number() over (partition by level order by n desc, device) as r from (select level, device, count(*) as n from readings group by level, device)) where r <= 1 order by n desc, level, device
# Inner queries.
select count(*) as n from readings where device = {select device from readings where level = 4 and value > 990}
= select count(*) as n from readings where device in (select device from readings where level = 4 and value > 990)
select count(*) as n from readings where big = {select max(big) from readings}
= select count(*) as n from readings where big = (select max(big) from readings)
select device, value, big from readings where value > 0 and timestamp = {select max(timestamp) from readings where device = 'pump-1'} order by big
= select device, value, big from readings where value > 0 and timestamp = (select max(timestamp) from readings where device = 'pump-1') order by big
select count(*) as n from readings where device = {select device from archive where value > 1e200}
= select count(*) as n from readings where 1 = 0
