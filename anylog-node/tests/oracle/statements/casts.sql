# Casts of columns of the answer.
select value::float(2) as v, big from readings where level = 1 order by big
= select rounded(value, 2) as v, big from readings where level = 1 order by big
select value::float(0) as v, big from readings where level = 1 order by big
= select rounded(value, 0) as v, big from readings where level = 1 order by big
select avg(value)::float(3) as v, device from readings group by device order by device
= select rounded(avg(value), 3) as v, device from readings group by device order by device
select avg(value)::float(3) from readings where device = 'pump-1'
= select rounded(avg(value), 3) as "avg(value)" from readings where device = 'pump-1'
select value::float(%2) as v, big from readings where level = 2 and abs(value) < 1000 order by big
= select replace(fixed(value, 2), ',', '') as v, big from readings where level = 2 and abs(value) < 1000 order by big
select count::float(1) as c, big from readings where level = 1 order by big
= select cast(count as real) as c, big from readings where level = 1 order by big
select value::int as v, big from readings where level = 1 order by big
= select cast(value as integer) as v, big from readings where level = 1 order by big
select value::int, big from readings where level = 1 order by big
= select cast(value as integer) as value, big from readings where level = 1 order by big
select count::str as c, big from readings where level = 1 order by big
= select cast(count as text) as c, big from readings where level = 1 order by big
select device::str as d, big from readings where level = 1 order by big
= select device as d, big from readings where level = 1 order by big
select device::ljust(5) as d, big from readings where level = 1 order by big
= select substr(device || '     ', 1, 5) as d, big from readings where level = 1 order by big
select device::rjust(4) as d, big from readings where length(device) >= 4 order by big
= select substr(device, -4) as d, big from readings where length(device) >= 4 order by big
select timestamp::ljust(19) as t, big from readings where level = 1 order by big
= select substr(timestamp, 1, 19) as t, big from readings where level = 1 order by big
select device::lstrip as l, device::rstrip as r, big from readings where device = ' blank ' order by big
= select ltrim(device) as l, rtrim(device) as r, big from readings where device = ' blank ' order by big
select device::lstrip::rstrip as l, big from readings where device = ' blank ' order by big
= select trim(device) as l, big from readings where device = ' blank ' order by big
select value::format(:.3f) as v, big from readings where level = 1 order by big
= select fixed(value, 3) as v, big from readings where level = 1 order by big
select value::format(":.1f") as v, big from readings where level = 1 order by big
= select fixed(value, 1) as v, big from readings where level = 1 order by big
select count::format(:x) as v, count from readings where count >= 0 order by big
= select printf('%x', count) as v, count from readings where count >= 0 order by big
select big::format(:,) as v, big from readings where big between 0 and 99999999999999 and level = 1 order by big
= select printf('%,d', big) as v, big from readings where big between 0 and 99999999999999 and level = 1 order by big
select level::format(:b) as v, big from readings where level in (2, 4) order by big
= select case level when 2 then '10' else '100' end as v, big from readings where level in (2, 4) order by big
select count::format(:o) as v, big from readings where count >= 0 and level = 1 order by big
= select printf('%o', count) as v, big from readings where count >= 0 and level = 1 order by big
select value::format(:.2e) as v, big from readings where value = 1.5 or value = 0.0 order by big
= select case when value = 0 then '0.00e+00' else '1.50e+00' end as v, big from readings where value = 1.5 or value = 0.0 order by big
select count::format(:06d) as v, big from readings where level = 1 order by big
= select printf('%06d', count) as v, big from readings where level = 1 and count is not null union all select null, big from readings where level = 1 and count is null order by big
select timestamp::datetime(%Y-%m-%d) as d, big from readings where level = 1 order by big
= select substr(timestamp, 1, 10) as d, big from readings where level = 1 order by big
select timestamp::datetime(%H:%M) as d, big from readings where level = 1 order by big
= select substr(timestamp, 12, 5) as d, big from readings where level = 1 order by big
select timestamp::datetime('%d/%m/%Y %H.%M.%S') as d, big from readings where level = 1 order by big
= select strftime('%d/%m/%Y ', substr(timestamp, 1, 10)) || replace(substr(timestamp, 12, 8), ':', '.') as d, big from readings where level = 1 order by big
select timestamp::datetime(%Y-%m-%d %H:%M:%S.%f) as d, big from readings where level = 1 order by big
= select timestamp as d, big from readings where level = 1 order by big
select min(timestamp)::datetime(%Y) as y, site from readings group by site order by site
= select substr(min(timestamp), 1, 4) as y, site from readings group by site order by site
select timestamp::timezone(pt) as t, big from readings where level = 1 order by big
= select substr(in_zone(timestamp, 'America/Los_Angeles'), 1, 19) as t, big from readings where level = 1 order by big
select timestamp::timezone(et) as t, timestamp as u, big from readings where level = 1 order by big
= select substr(in_zone(timestamp, 'America/New_York'), 1, 19) as t, timestamp as u, big from readings where level = 1 order by big
select timestamp::timezone(Europe/Berlin) as t, big from readings where level = 2 order by big
= select substr(in_zone(timestamp, 'Europe/Berlin'), 1, 19) as t, big from readings where level = 2 order by big
select event::timezone(utc)::ljust(10) as t, big from readings where level = 2 order by big
= select substr(event, 1, 10) as t, big from readings where level = 2 order by big
select timestamp::timediff('2023-12-31T00:00:00Z') as d, big from readings where timestamp >= '2023-12-31' and timestamp < '2024-01-01' order by big
= select substr(timestamp, 12) as d, big from readings where timestamp >= '2023-12-31' and timestamp < '2024-01-01' order by big
select timestamp::timediff(other) as d, timestamp as other, big from readings where level = 1 order by big
= select '00:00:00.000000' as d, timestamp as other, big from readings where level = 1 order by big
select device::replace(pump by Pumpe) as d, big from readings where device = 'pump-1' order by big
= select replace(device, 'pump', 'Pumpe') as d, big from readings where device = 'pump-1' order by big
select device::replace('-' by '_') as d, big from readings where device = 'pump-1' order by big
= select replace(device, '-', '_') as d, big from readings where device = 'pump-1' order by big
select value::function([value] * 9 / 5 + 32) as f, value, big from readings where value between 0.1 and 0.9 order by big
= select value * 9 / 5 + 32 as f, value, big from readings where value between 0.1 and 0.9 order by big
select count::function([count] + [level]) as f, count, level, big from readings where count is not null and level is not null order by big
= select count + level as f, count, level, big from readings where count is not null and level is not null order by big
select max(value)::float(1) as m, min(value)::int as n, count(*)::str as c from readings where value > -5000
= select rounded(max(value), 1) as m, cast(min(value) as integer) as n, cast(count(*) as text) as c from readings where value > -5000
select increments(month, 1, timestamp), min(timestamp)::datetime(%Y-%m) as m, avg(value)::format(:.2f) as a from readings where value > -5000
= select substr(min(timestamp), 1, 7) as m, fixed(avg(value), 2) as a from readings where value > -5000 group by @inc(month,1,timestamp) order by @inc(month,1,timestamp)
select price::float(1)::str as p, big from readings where price = 12.25 or price = 100.0 order by big
= select case when price = 100 then '100.0' else '12.2' end as p, big from readings where price = 12.25 or price = 100.0 order by big
select level::float(2)::int::str as p, big from readings where level = 4 order by big
= select '4' as p, big from readings where level = 4 order by big
select value::float(2), count::int, device::str, big from readings where value is null and count is null order by big
= select null as value, null as count, device, big from readings where value is null and count is null order by big
select ok::str as o, big from readings where level = 1 order by big
= select case when ok then 'true' when not ok then 'false' end as o, big from readings where level = 1 order by big
select ok::int as o, big from readings where level = 1 order by big
= select ok + 0 as o, big from readings where level = 1 order by big
