# GROUP BY, HAVING, windows.
select device, count(*) as n from readings group by device
select device, count(*) as n from readings group by device order by device
select device, count(*) as n from readings group by device order by n desc, device
select device, count(*) as n from readings group by device order by n desc, device limit 3
select device, count(*) as n from readings group by device order by device desc limit 4 offset 2
select site, avg(value) as mean, min(value) as low, max(value) as high from readings group by site order by site
select site, avg(value), sum(value), count(value) from readings group by site order by site
= select site, avg(value) as "avg(value)", sum(value) as "sum(value)", count(value) as "count(value)" from readings group by site order by site
select avg(value) as mean, site from readings group by site order by mean, site
select site, level, count(*) as n, sum(value) as s from readings group by site, level order by site, level
select level, site, max(timestamp) as t from readings group by level, site order by level desc, site
select ok, count(*) as n, avg(count) as c from readings group by ok order by ok
select ok, site, count(*) as n from readings group by ok, site
select level, count(distinct device) as d from readings group by level order by level
select site, count(distinct device) as d, count(distinct level) as l, count(*) as n from readings group by site order by site
select device, count(distinct timestamp) as n from readings group by device order by device
select device, count(distinct value) as n, sum(value) as s from readings group by device order by device
select site, range(value) as r from readings group by site order by site
= select site, max(value) - min(value) as r from readings group by site order by site
select site, stddev(value) as s from readings where value > -100000 group by site order by site
select device, stddev(count) as s, variance(count) as v, count(*) as n from readings group by device order by device
select site, level, var_pop(value) as s from readings where value > -100000 group by site, level order by site, level
select device, max(value) as m from readings group by device having max(value) > 999 order by device
select device, count(*) as n from readings group by device having count(*) > 150 and device <> '' order by device
select device, avg(value) as a from readings group by device having avg(value) < 0 order by a, device
select device, avg(value) as a from readings group by device having a is not null order by device
select site, count(*) as n from readings group by site having n > 10 order by site
select site, sum(value) as s from readings group by site having min(value) < -500 and max(value) > 500 order by site
select level % 2 as odd, count(*) as n from readings group by level % 2 order by odd
select level % 2 as odd, count(*) as n from readings group by odd order by odd
select lower(device) as name, count(*) as n from readings group by lower(device) order by name
select lower(device) as name, count(*) as n from readings group by name order by 2 desc, 1
select coalesce(device, 'none') as name, count(*) as n from readings group by 1 order by 1
select case when value > 0 then 'up' when value < 0 then 'down' else 'none' end as way, count(*) as n, avg(value) as a from readings group by way order by way
~ positive
select value > 0 as positive, count(*) as n from readings group by positive order by positive
select substr(timestamp, 1, 4) as y, count(*) as n from readings group by y order by y
select date_trunc('month', timestamp) as month, count(*) as n, avg(value) as a from readings group by month order by month
= select substr(timestamp, 1, 7) || '-01 00:00:00.000000' as month, count(*) as n, avg(value) as a from readings group by month order by month
select date_trunc('day', timestamp) as day, sum(count) as s from readings where timestamp >= '2025-06-01' and timestamp < '2025-07-01' group by date_trunc('day', timestamp) order by day
= select substr(timestamp, 1, 10) || ' 00:00:00.000000' as day, sum(count) as s from readings where timestamp >= '2025-06-01' and timestamp < '2025-07-01' group by day order by day
select date_trunc('hour', timestamp) as h, count(*) as n from readings where timestamp < '2023-01-10' group by h order by h
= select substr(timestamp, 1, 13) || ':00:00.000000' as h, count(*) as n from readings where timestamp < '2023-01-10' group by h order by h
select date_trunc('year', timestamp) as y, max(value) as m from readings group by y order by y
= select substr(timestamp, 1, 4) || '-01-01 00:00:00.000000' as y, max(value) as m from readings group by y order by y
select date_trunc('week', timestamp) as w, count(*) as n from readings where timestamp >= '2024-01-01' and timestamp < '2024-03-01' group by w order by w
= select date(substr(timestamp, 1, 10), '-6 days', 'weekday 1') || ' 00:00:00.000000' as w, count(*) as n from readings where timestamp >= '2024-01-01' and timestamp < '2024-03-01' group by w order by w
select extract(hour from timestamp) as h, count(*) as n from readings group by h order by h
= select cast(substr(timestamp, 12, 2) as integer) as h, count(*) as n from readings group by h order by h
select extract(year from timestamp) as y, extract(month from timestamp) as m, count(*) as n from readings group by y, m order by y, m
= select cast(substr(timestamp, 1, 4) as integer) as y, cast(substr(timestamp, 6, 2) as integer) as m, count(*) as n from readings group by y, m order by y, m
select extract(dow from timestamp) as d, avg(value) as a from readings group by d order by d
= select cast(strftime('%w', substr(timestamp, 1, 10)) as integer) as d, avg(value) as a from readings group by d order by d
select extract(day from timestamp) as d, count(distinct device) as n from readings group by d order by d
= select cast(substr(timestamp, 9, 2) as integer) as d, count(distinct device) as n from readings group by d order by d
select device, min(timestamp) as first, max(timestamp) as last, count(*) as n from readings where value > 0 group by device order by last desc, device
select device from readings group by device order by device
select device, site from readings group by device, site order by device, site
select device from readings group by device having count(*) > 1000000000
select price, count(*) as n from readings group by price order by n desc, price limit 20
select value, count(*) as n from readings where value between 0 and 10 group by value order by value
select count, count(*) as n from readings group by count order by count limit 30
select note, count(*) as n, min(big) as b from readings group by note order by note
select event, count(*) as n from readings where event < '2023-01-03' group by event order by event
select max(value) as value, device from readings group by device order by device
select count(*) as device, site from readings group by site order by site
select site, sum(value) / count(*) as mean, max(value) - min(value) as spread from readings group by site order by site
select site, count(*) * 100 as n, avg(value) + avg(count) as both from readings group by site order by site
select site, sum(case when ok then 1 else 0 end) as yes, sum(case when not ok then 1 else 0 end) as no from readings group by site order by site
select device, level, site, ok, count(*) as n, avg(value) as a from readings group by device, level, site, ok order by device, level, site, ok
select device, level, site, ok, count(*) as n from readings group by device, level, site, ok order by n desc, device, level, site, ok limit 15
select distinct site, count(*) as n from readings group by site order by site
select site, group_concat(distinct site) as g from readings group by site order by site
select device, big, row_number() over (order by big) as n from readings order by n limit 50
select device, big, row_number() over (partition by device order by big desc) as n from readings where level = 2 order by device, n
select big, rank() over (order by level) as r from readings where value > 990 order by big
select big, lag(value) over (order by timestamp, big) as before from readings where device = 'pump-1' order by timestamp, big
select big, lead(value, 2) over (order by timestamp, big) as after from readings where device = 'pump-1' order by timestamp, big
select big, sum(level) over (partition by site order by timestamp, big) as running from readings where level > 2 order by big
select big, avg(value) over (partition by site) as mean from readings where level = 4 order by big
select big, first_value(value) over (partition by site order by timestamp, big) as f from readings where level = 4 order by big
select site, count(*) as n, rank() over (order by count(*) desc, site) as r from readings group by site order by r
