# Aggregates without groups.
select count(*) from readings
select count(*) as n from readings
select count(value) as n, count(device) as d, count(ok) as o, count(note) as t, count(event) as e from readings
select COUNT(*), MIN(value), MAX(value), SUM(value), AVG(value) from readings
= select count(*) as "count(*)", min(value) as "min(value)", max(value) as "max(value)", sum(value) as "sum(value)", avg(value) as "avg(value)" from readings
select min(value) as low, max(value) as high from readings
select min(timestamp), max(timestamp) from readings
select min(timestamp) as first, max(timestamp) as last, min(event) as e, max(event) as f from readings
select min(device) as first, max(device) as last from readings
select min(note) as first, max(note) as last from readings where note <> ''
select min(site) as first, max(site) as last from readings
select min(big) as low, max(big) as high, sum(count) as total from readings
select sum(level) as total, avg(level) as mean from readings
select sum(price) as total, avg(price) as mean, min(price) as low, max(price) as high from readings
select sum(big) as total from readings where level = 1
select avg(big) as mean from readings
select avg(count) as mean, avg(value) as value_mean from readings where device = 'pump-1'
~ low, high
select min(ok) as low, max(ok) as high from readings
select range(value) as r from readings
= select max(value) - min(value) as r from readings
select range(value) from readings
= select max(value) - min(value) as "range(value)" from readings
select range(count) as r, range(price) as p, range(level) as l from readings
= select max(count) - min(count) as r, max(price) - min(price) as p, max(level) - min(level) as l from readings
select count(distinct device) as n from readings
select count(distinct device) from readings
select count(distinct device) as d, count(distinct site) as s, count(distinct level) as l, count(distinct ok) as o from readings
select count(distinct timestamp) as n from readings
select count(distinct value) as n from readings
select count(distinct big) as n, count(*) as m, sum(value) as s from readings
select count(distinct price) as n from readings where value > 0
select count(distinct lower(device)) as n from readings
select count(distinct substr(timestamp, 1, 10)) as days from readings
select count(distinct device) as n, avg(value) as mean, min(timestamp) as first from readings where level > 0
select sum(distinct level) as s, avg(distinct level) as a from readings
select min(distinct level) as s, max(distinct level) as a from readings
select count(distinct note) as n from readings where note is null
select sum(value) as s, count(value) as c, avg(value) as a from readings where device = 'nobody'
select count(*) as n, min(device) as d, max(timestamp) as t, sum(count) as s, avg(value) as a from readings where 1 = 0
select count(distinct device) as n, range(value) as r from readings where value > 1e300
= select count(distinct device) as n, max(value) - min(value) as r from readings where value > 1e300
select sum(value) / count(value) as mean, avg(value) as also from readings
select max(value) - min(value) as spread, max(count) + min(level) as odd from readings
select avg(value) * 2 + 1 as twice, sum(value) - sum(count) as difference from readings
select sum(value * 2) as s, sum(value + count) as t, avg(value * value) as q from readings
select sum(count) / count(*) as whole, sum(count) % 7 as rest from readings
select sum(case when value > 0 then 1 else 0 end) as positive, count(*) as n from readings
select sum(case when ok then value else 0 end) as s from readings
select sum(case when device = 'pump-1' then value end) as one, sum(case when device = 'pump-2' then value end) as two from readings
select count(case when level > 2 then 1 end) as n from readings
select round(avg(value), 3) as mean, abs(min(value)) as low from readings
select cast(avg(value) as integer) as mean from readings
select coalesce(sum(value), 0) as s from readings where device = 'nobody'
= select coalesce(sum(value), 0.0) as s from readings where device = 'nobody'
select coalesce(max(level), -99) as s from readings where device = 'nobody'
select total(value) as t from readings
select upper(min(device)) as d, length(max(note)) as l from readings
select min(value) as a, min(value) as b, max(value) as c from readings
select avg(value) as a, sum(value) as s, count(value) as c, avg(count) as d, sum(count) as e from readings
select max(length(note)) as longest, min(abs(value)) as nearest from readings where value <> 0
select count(*) + 1 as more, -count(*) as less from readings
select max(timestamp) as t from readings where device = 'it''s'
select min(timestamp) as t from readings where value > 900 and level = 2
select max(timestamp) as t from readings where timestamp < '2024-01-01'
select stddev(value) as s from readings where value > -1000000
select stddev(value) as s, variance(value) as v from readings
select stddev_pop(level) as p, stddev_samp(level) as q, var_pop(level) as v, var_samp(level) as w from readings
select stddev(count) as s, avg(count) as m, count(*) as n from readings where device like 'pump%'
select variance(price) as v from readings
select stddev(value) as s from readings where 1 = 0
select var_samp(value) as s, var_pop(value) as p from readings where big = (1 - 1)
select stddev(big) as s from readings
select group_concat(distinct site) as s from readings where site = 'site-1'
select count(*) as n from archive
select count(*) as n, count(distinct device) as d, avg(value) as v from sparse
select min(timestamp), max(timestamp), range(value) from sparse
= select min(timestamp), max(timestamp), max(value) - min(value) as "range(value)" from sparse
select max(value, 0) as m, big from readings where level = 4
= select max(value, 0.0) as m, big from readings where level = 4
select count(*) as n from readings having count(*) > 5
select count(*) as n from readings having count(*) < 5
select count(*) as n, sum(level) as s from readings limit 1
select distinct count(*) as n from readings
