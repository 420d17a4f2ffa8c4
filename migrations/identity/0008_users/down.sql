drop trigger refresh_member_search on users;
drop trigger fill_member_search on organization_members;
drop function refresh_member_search(), fill_member_search();
alter table organization_members
  drop column suspended_at,
  drop column suspended_reason,
  drop column search_username,
  drop column search_email,
  drop column search_first_name,
  drop column search_last_name;
drop function folded(text);
